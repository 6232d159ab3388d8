// What the screens that prepare a run are built from.

import { fill, h, newId } from "./dom.js";
import { stepper } from "./stepper.js";
import { complain } from "./ui.js";

export * from "./dom.js";
export * from "./format.js";
export * from "./ui.js";

/** An element: `el("p.muted", {id: "a"}, "text")`. Classes stand behind the tag; the attributes are those of `h`, and may be left out. */
export function el(name, ...inside) {
  const [tag, ...classes] = name.split(".");
  const props = inside[0]?.constructor === Object ? inside.shift() : {};
  return h(tag, classes.length ? { class: classes.join(" "), ...props } : props, inside);
}

export const row = (...inside) => el("div.row", inside);
export const muted = (...inside) => el("p.muted", inside);

/** A link that looks like a button. */
export const go = (label, href, kind = "") => el(`a.button.${kind}`, { href }, label);

/** Fills the screen: the steps, the heading with what it is about, what can be done, and the rest. */
export const screen = (main, step, title, about, acts, ...rest) =>
  fill(main, stepper(step), el("div.head", el("div", el("h1", title), muted(about)), acts), rest);

/** A small button that shows a sign. `label` says what it does. */
export const icon = (sign, label, click, kind = "icon") => el(`button.${kind}`, { type: "button", "aria-label": label, title: label, on: { click } }, sign);

/** A check box with its label: `{box, line}`. */
export function check(label, props = {}) {
  const box = el("input", { type: "checkbox", id: newId("c"), ...props });
  return { box, line: el("div.check", box, el("label", { for: box.id }, label)) };
}

/** What a button opens to choose files from the disk. `take` gets them. */
export const picker = (props, take) => el("input", { type: "file", hidden: true, ...props, on: { change: async ({ target }) => {
  const files = [...target.files];
  target.value = ""; // so that the same file can be chosen again
  await take(files).catch(complain);
} } });
