// Elements, made and changed without markup: everything that is shown is text.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes, `on…` listeners, then children; strings become text. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an element's text where it differs, so that selections and readers are left in peace. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or removes an attribute where it differs. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Makes a parent's children follow a list: made once for each key, changed in place, moved where needed. */
export function follow(parent, items, keyOf, make, change = () => {}) {
  const known = parent.followed ?? (parent.followed = new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, element] of known) {
    if (!wanted.has(key)) {
      element.remove();
      known.delete(key);
    }
  }
  const mine = new Set(known.values());
  let place = parent.firstElementChild;
  while (place !== null && !mine.has(place)) place = place.nextElementSibling;
  for (const item of items) {
    const key = keyOf(item);
    let element = known.get(key);
    if (element === undefined) known.set(key, (element = make(item)));
    change(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
}

const SHAPES = {
  good: () => svg("circle", { cx: 6, cy: 6, r: 4 }),
  busy: () => svg("path", { d: "M6 2a4 4 0 0 1 0 8z" }),
  idle: () => svg("circle", { cx: 6, cy: 6, r: 3.2, class: "hollow" }),
  warn: () => svg("path", { d: "M6 1.5 11 10.5H1z" }),
  bad: () => svg("rect", { x: 2, y: 2, width: 8, height: 8 }),
};

/** A state: a shape and a word. `setState` changes it. */
export function state(kind = "idle", word = "") {
  const element = h("span", { class: "state" }, svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }), h("span"));
  setState(element, kind, word);
  return element;
}

/** Changes a state made by `state`. */
export function setState(element, kind, word, title = null) {
  if (element.dataset.kind !== kind) {
    element.dataset.kind = kind;
    const ring = kind === "busy" ? [svg("circle", { cx: 6, cy: 6, r: 3.4, class: "hollow" })] : [];
    element.firstElementChild.replaceChildren(...ring, SHAPES[kind]());
  }
  say(element.lastElementChild, word);
  mark(element, "title", title);
}

/** A table: its caption is read aloud, not shown. Columns are `[title, class]`; the body is `.body`. */
export function table(caption, columns) {
  const body = h("tbody", { class: "rows" });
  const head = h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)));
  const element = h("div", { class: "scroll" }, h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, head), body));
  element.body = body;
  return element;
}

/** A name and its value, for lists of facts. The value is `.value`. */
export function fact(name, kind = "") {
  const value = h("dd", { class: kind });
  const element = h("div", {}, h("dt", {}, name), value);
  element.value = value;
  return element;
}

/** What to show where there is nothing: a sentence, and what to do next. */
export function empty(sentence, ...next) {
  return h("div", { class: "empty" }, h("p", {}, sentence), next.length ? h("p", { class: "soft" }, ...next) : null);
}
