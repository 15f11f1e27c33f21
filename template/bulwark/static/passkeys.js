// Adds passkeys and signs in with them. A form with `data-passkey` asks its own address
// for a challenge, lets the browser answer it, and sends the answer. Where that fails,
// the form says why, and its button tries again.

const OLD = 4 * 60 * 1000; // A challenge is good for five minutes.
const REASONS = {
  InvalidStateError: "Your account already has a passkey from this device.",
  NotAllowedError: "The request was canceled or timed out. Try again.",
  NotSupportedError: "This security key can't verify you. Use one with a PIN, fingerprint or face recognition.",
  ConstraintError: "This security key can't verify you. Use one with a PIN, fingerprint or face recognition.",
  SecurityError: "Passkeys don't work at this address.",
  TypeError: "The service didn't respond. Check your connection.",
};
const BUFFERS = [
  ...["clientDataJSON", "attestationObject", "authenticatorData"],
  ...["signature", "userHandle"],
];

// Not the browser's own JSON helpers: some password managers answer without them.
const toBytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) =>
    c.charCodeAt(0),
  );
const toText = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
const withBytes = (one) => ({ ...one, id: toBytes(one.id) });

function readOptions(options) {
  const read = { ...options, challenge: toBytes(options.challenge) };
  if (options.user) read.user = withBytes(options.user);
  for (const list of ["excludeCredentials", "allowCredentials"]) {
    if (options[list]) read[list] = options[list].map(withBytes);
  }
  return read;
}

function writeCredential({ id, rawId, type, response }) {
  const parts = BUFFERS.filter((name) => response[name]);
  const written = parts.map((name) => [name, toText(response[name])]);
  const transports = response.getTransports ? response.getTransports() : [];
  return JSON.stringify({
    id,
    rawId: toText(rawId),
    type,
    response: { ...Object.fromEntries(written), transports },
  });
}

function prepare(form) {
  const address = form.getAttribute("action");
  const button = form.querySelector("button");
  const problem = form.querySelector("[role=alert]");
  let waiting = new AbortController();
  let offeredAt = 0;

  const challenge = async () => {
    const answer = await fetch(address, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new FormData(form),
    });
    return answer.ok ? (await answer.json()).response : null;
  };
  const send = (credential, state) => {
    form.elements.credential.value = writeCredential(credential);
    form.action = `${address}/${state}`;
    form.submit();
  };
  const run = async () => {
    waiting.abort(); // A browser answers one call at a time.
    const given = await challenge();
    // Whatever the service objects to, it says on a page.
    if (!given) return form.submit();
    const publicKey = readOptions(given.credential_options);
    const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
    return send(credential, given.wan_state);
  };

  // Passkeys among what the browser offers to fill into the field of the address.
  const offer = async () => {
    waiting.abort();
    waiting = new AbortController();
    const { signal } = waiting;
    const given = await challenge();
    if (!given || signal.aborted) return;
    offeredAt = Date.now();
    const publicKey = readOptions(given.credential_options);
    const wanted = { publicKey, signal, mediation: "conditional" };
    send(await navigator.credentials.get(wanted), given.wan_state);
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.ariaBusy === "true") return;
    button.ariaBusy = "true";
    problem.hidden = true;
    try {
      await run();
    } catch (error) {
      problem.textContent = REASONS[error.name] || "Something went wrong. Try again.";
      problem.hidden = false;
      problem.focus();
      button.textContent = "Try again";
    } finally {
      button.ariaBusy = "false";
    }
  });
  form.hidden = false;
  if ("autofill" in form.dataset) {
    const tryOffer = () => offer().catch(() => {}); // The button is still there.
    PublicKeyCredential.isConditionalMediationAvailable?.().then((available) => {
      if (!available) return;
      tryOffer();
      window.addEventListener("focus", () => {
        if (Date.now() - offeredAt > OLD && button.ariaBusy !== "true") tryOffer();
      });
    });
  }
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  if (window.PublicKeyCredential) {
    prepare(form);
  } else {
    const notice = document.createElement("p");
    notice.textContent = "This browser doesn't support passkeys. Use another method.";
    form.before(notice);
  }
}
