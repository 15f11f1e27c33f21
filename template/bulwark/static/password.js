// Puts a button on each password field that shows what was typed.
for (const input of document.querySelectorAll("input[type=password]")) {
  const button = document.createElement("button");
  const show = (visible) => {
    input.type = visible ? "text" : "password";
    button.textContent = visible ? "Hide" : "Show";
    button.setAttribute("aria-label", `${button.textContent} the password`);
  };
  button.type = "button";
  button.addEventListener("click", () => show(input.type === "password"));
  // Hidden again when it is sent: a browser may remember what is in a text field.
  input.form.addEventListener("submit", () => show(false));
  // No spelling service sees it while it is shown.
  input.spellcheck = false;
  input.autocapitalize = "none";
  show(false);
  input.after(button);
}
