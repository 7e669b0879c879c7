// A question in a dialog.

import { button, element, notify } from "./element.js";

// Shows a form. `read` returns what it says, or null where it says nothing yet; `send` returns what to tell then.
export function askInDialog(title, fields, read, send, words = "Save") {
  const problem = element("p", { class: "problem", role: "alert" });
  const dialog = element("dialog", { "aria-labelledby": "dialog-title" });
  const submit = async (event) => {
    event.preventDefault();
    const said = read();
    if (said === null) {
      problem.textContent = "Choose or type something first.";
      return;
    }
    const began_ms = performance.now();
    try {
      const told = await send(said);
      dialog.close();
      notify(told, began_ms);
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const form = element(
    "form",
    { onsubmit: submit },
    element("h2", { id: "dialog-title" }, title),
    ...fields,
    problem,
    element("p", { class: "row" }, element("button", { type: "submit" }, words), button("Cancel", () => dialog.close())),
  );
  const before = document.activeElement;
  dialog.append(form);
  dialog.addEventListener("close", () => {
    dialog.remove();
    backTo(before)?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

// The control that opened it, or the one that took its place while the dialog was open.
function backTo(control) {
  const key = control?.dataset.key;
  if (control?.isConnected || key === undefined) return control;
  return document.querySelector(`[data-key="${CSS.escape(key)}"]`);
}
