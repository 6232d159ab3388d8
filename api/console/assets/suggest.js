// Asks the service itself which fields three of the pictures have.

import { ask, check, h, money, number, plural, say } from "./build.js";
import { usable } from "./draft.js";
import { newField } from "./schema.js";
import { estimate, fieldsFor, readNow } from "./send.js";

const TYPES = ["text", "number", "integer", "boolean", "date", "texts"];
const text = (description) => ({ type: "string", description });
const record = (properties) => ({ type: "object", required: Object.keys(properties), properties });
const SCHEMA = record({ fields: { type: "array", items: record({ name: text("In snake_case"), type: { type: "string", enum: TYPES }, description: text("What it holds, in a few words") }) } });
const PROMPT = "Many pictures like this one will be read into a table. Name the fields that are worth a column, the most important first, at most 15. Name the kind of value, not the value.";

/** Those that can be sent with this picture: a request has files or addresses. */
export const alike = (picture) => usable().filter((one) => !one.url === !picture?.url);

/** The first three pictures of one kind. */
export const three = () => alike(usable()[0]).slice(0, 3);

/** The fields that the person took of those proposed. */
export async function suggest(able) {
  const pictures = three();
  const fields = { ...fieldsFor(able, { prompt: PROMPT, schema: SCHEMA, maxMoney: "" }), imagesPerCall: 3 };
  const cost = await estimate(pictures.length, fields);
  const price = plural(cost.credits, "credit") + (cost.money ? ` and about ${money(cost.money)}` : "");
  if (!(await ask("Suggest fields?", `The model looks at ${plural(pictures.length, "picture")} and names the fields that it sees. This costs ${price}.`, [["", "No"], ["yes", `Ask for ${number(cost.credits)} credits`, "primary"]]))) return [];
  say("The model looks at the pictures…");
  const { items } = await readNow(pictures, fields);
  const found = new Map();
  for (const one of items.flatMap((item) => item.result?.fields ?? [])) if (one?.name && !found.has(one.name)) found.set(one.name, one);
  if (!found.size) throw new Error(items.find((item) => item.message)?.message ?? "The model named no fields.");
  const boxes = [...found.values()].map(({ name, type, description = "" }) => ({
    ...check([h("strong", name), ` ${type}`, h("span.muted", description && `: ${description}`)], { checked: true }),
    field: { ...newField(String(name), TYPES.includes(type) ? type : "text"), description: String(description), required: false },
  }));
  const taken = await ask("The model proposes these fields", h("div.plain", boxes.map(({ line }) => line)), [["", "None"], ["yes", "Add the marked ones", "primary"]]);
  return taken ? boxes.filter(({ box }) => box.checked).map(({ field }) => field) : [];
}
