// What the screens that prepare a run are built from.

import { fill, h, newId } from "./dom.js";
import { stepper } from "./stepper.js";
import { complain, head, link } from "./ui.js";

export * from "./dom.js";
export * from "./format.js";
export * from "./ui.js";

export const row = (...inside) => h("div.row", inside);
export const muted = (...inside) => h("p.muted", inside);

/** A link that looks like a button. */
export const go = (label, href, kind = "") => link(label, href, { class: `button ${kind}` });

/** Fills the screen: the steps, the title with what it is about, what can be done, and the rest. */
export const screen = (main, step, title, about, acts, ...rest) => fill(main, stepper(step), head(title, about, acts), rest);

/** A small button that shows a sign. `label` says what it does. */
export const icon = (sign, label, click, kind = "icon") => h("button", { class: kind, type: "button", "aria-label": label, title: label, on: { click } }, sign);

/** A check box with its label: `{box, line}`. */
export function check(label, props) {
  const box = h("input", { type: "checkbox", id: newId(), ...props });
  return { box, line: h("div.check", box, h("label", { for: box.id }, label)) };
}

/** What a button opens to choose files from the disk. `take` gets them. */
export const picker = (props, take) => h("input", { type: "file", hidden: true, ...props, on: { change: async ({ target }) => {
  const files = [...target.files];
  target.value = ""; // so that the same file can be chosen again
  await take(files).catch(complain);
} } });
