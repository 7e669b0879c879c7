// Making elements. Text becomes text nodes and nothing else: what a transcript says is never markup.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function button(words, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, words);
}

// An input with its label before it, and whatever belongs to it behind.
export function labelled(words, input, ...behind) {
  return element("p", {}, element("label", { for: input.id }, words), input, ...behind);
}

// A table that names what it is about; `rows` are lists of cells, each text or an element. Its roles are said, because
// a narrow window shows each row as a list (style.css), which would take them away.
export function table(caption, columns, rows) {
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `${caption}: table` },
    element(
      "table",
      { role: "table" },
      element("caption", { class: "hidden" }, caption),
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
        columns.map((words) => element("th", { scope: "col", role: "columnheader" }, words)))),
      element("tbody", { role: "rowgroup" }, rows.map((cells) => element("tr", { role: "row" },
        cells.map((cell, place) => element("td", { role: "cell", "data-column": columns[place] }, cell))))),
    ),
  );
}

// Replaces what an element holds, and gives the focus back to the control that had it, known by its `data-key`.
export function replaceKeepingFocus(parent, ...children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children);
  if (key !== undefined) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

let clearing = 0;
let told_ms = 0;

// Tells what happened, to the eye and to a screen reader; not where something newer than `since_ms` was told already.
export function notify(words, since_ms = Infinity) {
  if (told_ms > since_ms) return;
  told_ms = performance.now();
  const notice = document.getElementById("notice");
  notice.textContent = words;
  clearTimeout(clearing);
  clearing = setTimeout(() => { notice.textContent = ""; }, 12000);
}
