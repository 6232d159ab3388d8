// Shorthands for the screens of a run.

import { h } from "./dom.js";
import { link } from "./ui.js";

/** A link to a screen of the run that looks like a button. */
export const go = (screen, run, label, kind = "primary") => link(label, `#/${screen}/${run.href}`, { class: `button ${kind}` });

/** A round sign of a state. `kind`: as of a badge. */
export const sign = (mark, kind, props = { "aria-hidden": "true" }) => h("span", { class: `badge sign ${kind}`, ...props }, mark);
