// The steps of a run, shown above each screen that belongs to one.

import { h } from "./dom.js";

/** `current`: pictures, fields, try, run, review or export. `run`: the job's id or `batch:ID`; without one only the first steps can be opened. */
export function stepper(current, { run = "" } = {}) {
  const of = (name) => (run ? `#/${name}/${encodeURIComponent(run)}` : "");
  const steps = [["pictures", "Pictures", "#/new"], ["fields", "Fields", "#/fields"], ["try", "Try", "#/try"], ["run", "Run", of("run")], ["review", "Review", of("review")], ["export", "Export", of("export")]];
  const at = steps.findIndex(([id]) => id === current);
  return h("nav", { class: "steps", "aria-label": "Steps" }, h("ol", {}, steps.map(([id, label, href], place) => {
    const inside = [h("span", { class: "step-number", "aria-hidden": "true" }, place < at ? "✓" : place + 1), label];
    const kind = { class: place < at ? "step done" : "step", "aria-current": place === at ? "step" : null };
    return h("li", {}, href ? h("a", { href, ...kind }, inside) : h("span", { ...kind, "aria-disabled": "true", title: "This step follows when the pictures are sent." }, inside));
  })));
}
