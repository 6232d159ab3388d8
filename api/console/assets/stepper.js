// The steps of a run, shown above each screen that belongs to one.

import { h } from "./dom.js";

const STEPS = "Pictures Fields Try Run Review Export".split(" ");

/** `current`: pictures, fields, try, run, review or export. `run`: the job's id or `batch:ID`; without one only the first steps can be opened. */
export function stepper(current, { run = "" } = {}) {
  const at = STEPS.findIndex((label) => label.toLowerCase() === current);
  const steps = h("nav.steps", { "aria-label": "Steps" }, h("ol", STEPS.map((label, place) => {
    const name = place ? label.toLowerCase() : "new";
    const href = place < 3 ? `#/${name}` : run && `#/${name}/${encodeURIComponent(run)}`;
    const kind = { class: place < at ? "step done" : "step", "aria-current": place === at && "step" };
    const closed = { "aria-disabled": "true", title: "This step follows when the pictures are sent." };
    return h("li", h(href ? "a" : "span", { ...kind, ...(href ? { href } : closed) }, h("span.step-number", { "aria-hidden": "true" }, place < at ? "✓" : place + 1), label));
  })));
  // On a phone not all steps fit.
  requestAnimationFrame(() => steps.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }));
  return steps;
}
