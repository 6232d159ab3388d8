// The settings of a run: prompt, model, and what the model can do.

import { field, fill, h, money, select } from "./build.js";
import { draft } from "./draft.js";

const ALL = { detail: ["low", "medium", "high", "ultra"], thinking: ["minimal", "low", "medium", "high"] };
const KEEP = [["0", "Not at all"], ["3600", "One hour"], ["86400", "One day"], ["604800", "One week"]];

/** The model of this name, or the default one. */
export function modelOf(able, name = draft.model) {
  const find = (fits) => able.models.find(fits);
  const model = find((one) => one.name === name) ?? find((one) => one.default) ?? able.models[0];
  return { name: able.engine, can: {}, ...model };
}

/** A labelled list for `detail` or `thinking`. What the model lacks is there with the reason. */
export function level(setting, model, value, change, hint) {
  const can = model.can[setting] ?? [];
  const list = select([["", "As the model has it"], ...ALL[setting].map((one) => [one, one, can.includes(one) ? "" : `not with ${model.name}`])], value, change, { disabled: !can.length });
  return field(setting === "detail" ? "Detail" : "Thinking", list, { hint: can.length ? hint : `Not with ${model.name}.` });
}

/** A labelled list of the models, with the price of the chosen one. */
export const models = (able, { name, price, ...model }, change) =>
  field("Model", select(able.models.map((one) => [one.default ? "" : one.name, one.name, one.problem ?? ""]), model.default ? "" : name, change), { hint: price ? `${money(price.input)} in, ${money(price.output)} out for a million tokens.` : "" });

/** `{element, update}`. `changed` is called after each change. */
export function settings(able, changed) {
  const element = h("div.columns.settings");
  const most = able.keepInputsMaxSeconds ?? 0;
  const put = (name) => (value) => {
    draft[name] = value;
    if (name === "model") {
      update();
      element.querySelector("select").focus(); // that of the models
    }
    changed();
  };
  function update() {
    const model = modelOf(able);
    const { can } = model;
    const text = (label, name, hint, props, tag = "input") => field(label, h(tag, { ...props, value: draft[name], on: { input: ({ target }) => put(name)(target.value) } }), { hint, wide: tag !== "input" });
    const pick = (label, name, list, hint) => field(label, select(list, String(draft[name]), put(name)), { hint });
    const levels = (name, hint) => level(name, model, draft[name], put(name), hint);
    fill(element,
      text("Prompt", "prompt", can.prompt === false ? `${able.engine} reads what is there and follows no prompt.` : "What the model is told about each picture, beside the fields.",
        { maxlength: able.limits.promptChars, rows: "4", placeholder: "Read this receipt. Leave out what is not there.", disabled: can.prompt === false }, "textarea"),
      text("Name of the run", "name", "You find it again by this name.", { maxlength: "200", placeholder: "Receipts of May" }),
      models(able, model, put("model")),
      levels("detail", "More detail reads smaller print and costs more."),
      levels("thinking", "How long the model thinks before it answers."),
      pick("Tier", "tier", [["standard", "Standard"], ["economy", `Economy: ${model.price?.economy ? `${Math.round(model.price.economy * 100)} % of the price` : "cheaper"}, within four hours`, can.tiers?.includes("economy") ? "" : `not with ${model.name}`]]),
      pick("Keep the pictures", "keepInputsSeconds", KEEP.map(([seconds, label]) => [seconds, label, seconds > most ? "longer than the service keeps them" : ""]), "While they are kept, you see them beside their records from any tab, and can retry those that failed."),
      pick("Evidence", "evidence", [["", "No"], ["yes", "Look for each value in its picture"]], "OCR says where each value stands, or that it does not. Review opens with the records that need a look."),
      text("At most, in dollars", "maxMoney", model.price ? "The model is not asked for what this no longer covers." : "This model has no price in the settings, so a limit does nothing.", { type: "number", min: "0", step: "any", inputmode: "decimal", placeholder: "no limit" }));
  }
  draft.keepInputsSeconds = Math.min(draft.keepInputsSeconds, most);
  update();
  return { element, update };
}
