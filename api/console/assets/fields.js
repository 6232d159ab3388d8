// Screen: what is read in each picture, and how.

import { ask, button, card, debounced, disable, fill, h, notice, picker, plural, row, save, say, screen } from "./build.js";
import { draft, keep, usable } from "./draft.js";
import { fieldTable } from "./field-table.js";
import { faultsOf, fieldsOf, parse, schemaOf } from "./schema.js";
import { startRun } from "./send.js";
import { modelOf, settings } from "./settings.js";
import { suggest } from "./suggest.js";
import { TEMPLATES } from "./templates.js";

export const title = "Fields";

export async function show(main, { able }) {
  let more = {}; // keywords of the whole schema that the table doesn't show
  let jsonOnly = ""; // why only the JSON can be edited
  const place = h("div");
  const cannot = h("p.notice.warn.cannot");
  const said = h("p.hint", { role: "status" });
  const json = h("textarea.mono.json", { spellcheck: "false", "aria-label": "JSON Schema", "aria-describedby": "json-said" });
  const jsonSaid = h("p.hint", { id: "json-said", role: "status" });
  const set = settings(able, changed);

  const table = fieldTable(() => {
    draft.schema = draft.fields.length ? schemaOf(draft.fields, more) : null;
    write();
    changed();
  });

  /** Shows the schema as JSON. */
  function write() {
    json.value = draft.schema ? JSON.stringify(draft.schema, null, 2) : "";
    valid("");
  }

  function valid(fault, at) {
    json.ariaInvalid = String(Boolean(fault));
    fill(jsonSaid, fault ? h("span.bad-text", fault) : "A change here changes the table, and the other way round.", at && button("Show", () => (json.focus(), json.setSelectionRange(at - 1, at)), { kind: "quiet" }));
  }

  /** Shows the schema in the table, or why the table can't. */
  function read() {
    [draft.fields, more, jsonOnly] = [[], {}, ""];
    try {
      if (draft.schema) ({ fields: draft.fields, more } = fieldsOf(draft.schema));
    } catch (error) {
      jsonOnly = error.message;
    }
    const unseen = Object.keys(more).join(", ");
    fill(place, jsonOnly ? notice("warn", h("p", h("strong", "Only the JSON can be edited. "), jsonOnly), h("p", "The schema is used as it stands.")) : table.draw(draft.fields), unseen && h("p.hint", `Also in the JSON: ${unseen}`));
  }

  json.addEventListener("input", debounced(typed, 200));
  function typed() {
    try {
      const schema = json.value.trim() ? parse(json.value) : null;
      if (json.value.trim() && (Object(schema) !== schema || Array.isArray(schema))) throw new Error("A JSON Schema is an object, in { }.");
      draft.schema = schema;
      valid("");
      read();
    } catch (error) {
      valid(error.message, error.at);
    }
    changed();
  }

  const replace = async (what) => !draft.schema || ask(`Replace the fields by those of ${what}?`, "The fields that you have now are gone then.", [["", "Keep mine"], ["yes", "Replace", "primary"]]);

  async function use({ label, prompt, fields }) {
    if (!(await replace(`“${label}”`))) return;
    if (!draft.prompt.trim() || TEMPLATES.some((other) => other.prompt === draft.prompt)) draft.prompt = prompt;
    set.update();
    draft.schema = schemaOf(fields());
    read();
    table.changed();
    say(`${plural(draft.fields.length, "field")} of the template “${label}”.`);
  }

  async function propose() {
    const proposed = await suggest(able);
    const known = draft.fields.map((field) => field.name);
    draft.schema = schemaOf([...draft.fields, ...proposed.filter((field) => !known.includes(field.name))], more);
    read();
    table.changed();
  }

  const file = picker({ accept: ".json,application/json" }, async ([chosen]) => {
    if (!chosen || !(await replace(chosen.name))) return;
    json.value = await chosen.text();
    typed();
  });
  const bring = button("Import", () => file.click(), { kind: "quiet" });
  const give = button("Export", () => save(new Blob([json.value], { type: "application/schema+json" }), `${draft.name.trim() || "fields"}.schema.json`), { kind: "quiet" });
  const tryIt = button("Next: try on three", () => (location.hash = "#/try"), { kind: "primary" });
  const all = button("Read all", () => startRun(main, able));
  const templates = TEMPLATES.map((one) => button(one.label, () => use(one)));
  const suggestion = button("Suggest from three pictures", propose, { class: "button suggest" });

  function changed() {
    keep();
    const count = usable().length;
    const lacking = count ? "" : "Add pictures first.";
    const none = modelOf(able).can.schema === false && `${able.engine} reads the text of a picture and fills no fields`;
    fill(cannot, none && `${none}. Another engine fills them: see ENGINE in the service's settings.`);
    cannot.hidden = !none;
    for (const one of templates) disable(one, none || "");
    disable(suggestion, none || (jsonOnly ? "Only the JSON can be edited." : lacking));
    disable(give, draft.schema ? "" : "There is no field yet.");
    const faults = jsonOnly ? new Map() : faultsOf(draft.fields);
    table.mark(faults);
    const why = json.ariaInvalid === "true" ? "The JSON Schema has an error." : [...faults.values()][0] ?? lacking;
    for (const next of [tryIt, all]) disable(next, why);
    fill(all, count ? `Read all ${count}` : "Read all");
    fill(said, why);
  }

  screen(main, "fields", "What should be read?", "Each picture becomes one record with these fields. Without fields you get text.", h("div", row(all, tryIt), said),
    cannot, h("p.label", "Begin with a template"), h("div.templates", { role: "group", "aria-label": "Templates" }, templates, suggestion),
    h("div.split", h("section.card", { "aria-label": "Fields" }, h("h2", "Fields"), place),
      h("section.card.schema", { "aria-label": "JSON Schema" }, row(h("h2.grow", "JSON Schema"), bring, give, file), json, jsonSaid)),
    card("How it is read", set.element));
  read();
  write();
  changed();
}
