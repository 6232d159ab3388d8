// The settings of a run: prompt, model, and what the model can do.

import { fill, h } from "./dom.js";
import { draft, keep } from "./draft.js";
import { field, select } from "./ui.js";

const ALL = { detail: ["low", "medium", "high", "ultra"], thinking: ["minimal", "low", "medium", "high"] };
const KEEP = [["0", "Not at all"], ["3600", "One hour"], ["86400", "One day"], ["604800", "One week"]];

/** The model that the draft names, or the default one. */
export const modelOf = (able, name = draft.model) => able.models.find((one) => one.name === name) ?? able.models.find((one) => one.default) ?? able.models[0] ?? { name: "", can: {} };

/** The choices of a setting; those that the model lacks are there with the reason. */
export const choices = (setting, model) => [["", "As the model has it"], ...ALL[setting].map((one) => [one, one, model.can?.[setting]?.includes(one) ? "" : `not with ${model.name}`])];

export const priced = (one) => (one.price ? `${one.name} ($${one.price.input} in, $${one.price.output} out a million tokens)` : one.name);

/** `{element, update}`. `changed` is called after each change. */
export function settings(able, changed) {
  const element = h("div", { class: "settings" });
  const put = (name, value) => {
    draft[name] = value;
    keep();
    changed();
  };
  function update() {
    const model = modelOf(able);
    const can = model.can ?? {};
    const focused = document.activeElement?.dataset?.setting;
    const text = (name, props, tag = "input") => {
      const input = h(tag, { ...props, value: draft[name], data: { setting: name } });
      input.addEventListener("input", () => put(name, input.value));
      return input;
    };
    const prompt = text("prompt", { maxlength: able.limits.promptChars, rows: "4", placeholder: "Read this receipt. Leave out what is not there." }, "textarea");
    if (can.prompt === false) prompt.disabled = true;
    const pick = (name, list, act = (value) => put(name, value)) => select(list, String(draft[name]), act, { data: { setting: name } });
    const most = able.keepInputsMaxSeconds ?? 0;
    const kept = KEEP.map(([seconds, label]) => [seconds, label, Number(seconds) > most ? "longer than this service keeps them" : ""]);
    fill(element,
      field("Prompt", prompt, { wide: true, hint: can.prompt === false ? `${able.engine} reads what is there and follows no prompt.` : "What the model is told about each picture, beside the fields." }),
      field("Name of the run", text("name", { maxlength: "200", placeholder: "Receipts of May" }), { hint: "You find it again by this name." }),
      field("Model", pick("model", able.models.map((one) => [one.default ? "" : one.name, priced(one), one.problem ?? ""]), (value) => (put("model", value), update())), {}),
      field("Detail", pick("detail", choices("detail", model)), { hint: "How closely the model looks. More detail reads smaller print and costs more." }),
      field("Thinking", pick("thinking", choices("thinking", model)), { hint: can.thinking?.length ? "How long the model thinks before it answers." : `${model.name || "The engine"} does not think.` }),
      field("Tier", pick("tier", [["standard", "Standard"], ["economy", "Economy: cheaper, within a day", can.tiers?.includes("economy") ? "" : `not with ${model.name}`]])),
      field("Keep the pictures", pick("keepInputsSeconds", kept, (value) => put("keepInputsSeconds", Number(value))), { hint: "Only while they are kept can you see them beside their records from another tab, and retry those that failed." }),
      field("At most, in dollars", text("maxMoney", { type: "number", min: "0", step: "any", inputmode: "decimal", placeholder: "no limit" }), { hint: model.price ? "The model is not asked for what this no longer covers." : "This model has no price in the settings, so a limit has no effect." }));
    if (focused) element.querySelector(`[data-setting="${focused}"]`)?.focus();
  }
  if (draft.keepInputsSeconds > (able.keepInputsMaxSeconds ?? 0)) draft.keepInputsSeconds = able.keepInputsMaxSeconds ?? 0;
  update();
  return { element, update };
}
