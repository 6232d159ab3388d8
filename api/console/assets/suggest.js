// Asks the service itself which fields three of the pictures have.

import * as api from "./api.js";
import { h, newId } from "./dom.js";
import { usable } from "./draft.js";
import { money, number, plural } from "./format.js";
import { newField } from "./schema.js";
import { estimate, fieldsFor, submit } from "./send.js";
import { ask, say } from "./ui.js";

const TYPES = ["text", "number", "integer", "boolean", "date", "texts"];
const SCHEMA = {
  type: "object", required: ["fields"],
  properties: { fields: { type: "array", description: "The fields that a table of such pictures should have", items: {
    type: "object", required: ["name", "type", "description"],
    properties: { name: { type: "string", description: "In snake_case" }, type: { type: "string", enum: TYPES }, description: { type: "string", description: "What it holds, in a few words" } } } } },
};
const PROMPT = "Somebody will read many pictures like this one into a table. Name the fields that are worth a column, the most important first, at most 15. Name the kind of value, not the value itself.";

/** Three pictures of one kind, because a request has files or addresses. */
export const three = () => ((all) => all.filter((one) => Boolean(one.url) === Boolean(all[0]?.url)).slice(0, 3))(usable());

/** The fields that the person took of those proposed. */
export async function suggest(able) {
  const pictures = three();
  if (!pictures.length) throw new Error("Add pictures first.");
  const fields = { ...fieldsFor(able, { prompt: PROMPT, schema: SCHEMA, maxMoney: "" }), imagesPerCall: 3 };
  const cost = await estimate(pictures.length, fields);
  const price = `${plural(cost.credits, "credit")}${cost.money ? ` and about ${money(cost.money)}` : ""}`;
  if ((await ask("Suggest fields?", h("p", {}, `The model looks at ${plural(pictures.length, "picture")} and names the fields that it sees. This costs ${price}.`), [["", "No"], ["yes", `Ask for ${number(cost.credits)} credits`, "primary"]])) !== "yes") return [];
  say("The model looks at the pictures…");
  const job = await submit(pictures, fields);
  await api.follow(job.id, () => {}, new AbortController().signal);
  const { items } = await api.call(`api/v1/jobs/${job.id}/items`);
  const found = new Map();
  for (const item of items) for (const one of item.result?.fields ?? []) if (one?.name && !found.has(one.name)) found.set(String(one.name), one);
  if (!found.size) throw new Error(items.find((item) => item.message)?.message ?? "The model named no fields. Add them by hand, or take a template.");
  const boxes = [...found.values()].map((one) => {
    const box = h("input", { type: "checkbox", checked: true, id: newId("s") });
    return { box, one, line: h("li", { class: "check" }, box, h("label", { for: box.id }, h("strong", {}, one.name), ` ${one.type ?? "text"}`, h("span", { class: "muted" }, one.description ? `: ${one.description}` : ""))) };
  });
  const answer = await ask("The model proposes these fields", h("ul", { class: "plain" }, boxes.map(({ line }) => line)), [["", "None"], ["yes", "Add the marked ones", "primary"]]);
  if (!answer) return [];
  return boxes.filter(({ box }) => box.checked).map(({ one }) => ({ ...newField(String(one.name), TYPES.includes(one.type) ? one.type : "text"), description: String(one.description ?? ""), required: false }));
}
