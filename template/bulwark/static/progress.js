// Shows the progress of jobs, and reloads the page when one has ended.
for (const shown of document.querySelectorAll("[data-job]")) {
  const bar = shown.querySelector("progress");
  const text = shown.querySelector("[role=status]");
  const poll = async () => {
    try {
      const answer = await fetch(shown.dataset.job, { headers: { Accept: "application/json" } });
      if (answer.ok) {
        const run = await answer.json();
        if (run.state === "done" || run.state === "failed") {
          location.reload();
          return;
        }
        if (run.of) {
          bar.max = run.of;
          bar.value = run.done;
          text.textContent = `${run.done} of ${run.of}`;
        }
      } else if (answer.status < 500 && answer.status !== 429) {
        location.reload(); // signed out: the page asks to sign in
        return;
      }
    } catch {
      // The network is down: the next try may get through.
    }
    setTimeout(poll, 2000);
  };
  setTimeout(poll, 2000);
}
