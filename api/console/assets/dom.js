// Builds elements. Text always becomes a text node, so a stranger's HTML stays text.

const SVG = new Set(["svg", "path", "rect", "line", "g", "circle", "title", "text", "polyline"]);
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "indeterminate"]);

/**
 * An element. `kind`: a tag with its classes, as in "p.hint". After it may come an object of props: `class`, `on` (event → listener),
 * `data` (name → value), `style` (CSS property → value), attributes (`aria-label`, `for`, `role`, …); a boolean switches an attribute.
 * The rest are children: nodes, texts, arrays of them. null, undefined and false are left out.
 */
export function h(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (classes[0]) element.classList.add(...classes);
  const props = children[0]?.constructor === Object ? children.shift() : {};
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return fill(element, ...children);
}

/** Puts these children in place of those that `element` has. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(9).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

let last = 0;
/** An id that no other element has, for labels and descriptions. */
export const newId = (prefix = "e") => prefix + ++last;

/** Calls `act` once, `ms` after the last call. */
export function debounced(act, ms = 250) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...args), ms);
  };
}
