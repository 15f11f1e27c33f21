// Puts buttons beside new recovery codes: the browser downloads, copies and prints them,
// for the service can't show them again.
const codes = document.querySelector("[data-codes]");
const text = [...codes.querySelectorAll("code")].map((code) => code.textContent);
const tools = document.createElement("div");
const said = document.createElement("span");

const download = () => {
  const file = new Blob([`${codes.dataset.codes}\n\n${text.join("\n")}\n`]);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "recovery-codes.txt";
  link.click();
  URL.revokeObjectURL(link.href);
  said.textContent = "Downloaded.";
};
const copy = async () => {
  try {
    await navigator.clipboard.writeText(text.join("\n"));
    said.textContent = "Copied.";
  } catch {
    said.textContent = "Your browser blocked copying. Select the codes and copy them yourself.";
  }
};
const actions = { Download: download, Copy: copy, Print: () => window.print() };

for (const [label, action] of Object.entries(actions)) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = label;
  button.addEventListener("click", action);
  tools.append(button);
}
said.setAttribute("role", "status");
tools.className = "tools";
tools.append(said);
codes.after(tools);
