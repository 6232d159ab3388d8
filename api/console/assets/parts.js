// Shorthands for the screens of a run.

import { h } from "./dom.js";

/** An element with nothing but classes: `e("p.hint", "A text")`. */
export function e(kind, ...children) {
  const [tag, classes] = kind.split(".");
  return h(tag, classes ? { class: classes } : {}, children);
}

/** A link to a screen of the run that looks like a button. */
export const go = (screen, run, label, kind = "primary") => h("a", { class: `button ${kind}`, href: `#/${screen}/${run.href}` }, label);

/** A round sign of a state. `kind`: as of a badge. */
export const sign = (mark, kind, props = { "aria-hidden": "true" }) => h("span", { class: `badge sign ${kind}`, ...props }, mark);
