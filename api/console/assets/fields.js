// Screen: what is read in each picture, and how.

import { debounced, fill, h } from "./dom.js";
import { draft, keep, usable } from "./draft.js";
import { fieldTable } from "./field-table.js";
import { plural } from "./format.js";
import { settings } from "./settings.js";
import { faultsOf, fieldsOf, parse, schemaOf } from "./schema.js";
import { startRun } from "./send.js";
import { stepper } from "./stepper.js";
import { suggest } from "./suggest.js";
import { TEMPLATES } from "./templates.js";
import { ask, button, card, disable, notice, save, say } from "./ui.js";

export const title = "Fields";

export async function show(main, { able }) {
  let more = {}; // keywords of the whole schema that the table doesn't show
  let jsonOnly = ""; // why only the JSON can be edited
  const place = h("div", {});
  const said = h("div", { role: "status" });
  const json = h("textarea", { class: "mono json", spellcheck: "false", "aria-label": "JSON Schema", rows: "22", "aria-describedby": "json-said" });
  const jsonSaid = h("p", { class: "hint", id: "json-said", role: "status" });
  const set = settings(able, refresh);

  const table = fieldTable(() => {
    draft.schema = draft.fields.length ? schemaOf(draft.fields, more) : null;
    json.value = written();
    valid("");
    changed();
  });

  const written = () => (draft.schema ? JSON.stringify(draft.schema, null, 2) : "");
  const valid = (text, at = 0) => {
    json.setAttribute("aria-invalid", String(Boolean(text)));
    fill(jsonSaid, text ? h("span", { class: "bad-text" }, text) : "A change here changes the table, and the other way round.", text && at ? button("Show", () => (json.focus(), json.setSelectionRange(at - 1, at)), { kind: "quiet" }) : null);
  };

  /** Takes a schema in: the table shows it, or says why it can't. */
  function take(schema) {
    draft.schema = schema;
    try {
      ({ fields: draft.fields, more } = fieldsOf(schema));
      jsonOnly = "";
    } catch (error) {
      draft.fields = [];
      jsonOnly = error.message;
    }
    drawTable();
    changed();
  }

  function drawTable() {
    fill(place, jsonOnly ? notice("warn", h("p", {}, h("strong", {}, "Only the JSON can be edited. "), jsonOnly), h("p", {}, "The schema is used as it stands.")) : table.draw(draft.fields));
  }

  json.addEventListener("input", debounced(() => {
    try {
      if (!json.value.trim()) {
        more = {};
        jsonOnly = "";
        Object.assign(draft, { schema: null, fields: [] });
        valid("");
        drawTable();
        changed();
      } else {
        const schema = parse(json.value);
        if (schema === null || typeof schema !== "object" || Array.isArray(schema)) throw new Error("A JSON Schema is an object, in { }.");
        valid("");
        take(schema);
      }
    } catch (error) {
      valid(error.message, error.at);
      changed();
    }
  }, 200));

  async function replace(what) {
    if (!draft.schema) return true;
    return (await ask(`Replace the fields by ${what}?`, h("p", {}, "The fields that you have now are gone then."), [["", "Keep mine"], ["yes", "Replace", "primary"]])) === "yes";
  }

  async function use(one) {
    if (!(await replace(`those of “${one.label}”`))) return;
    const old = TEMPLATES.find((other) => other.prompt === draft.prompt);
    if (!draft.prompt.trim() || old) draft.prompt = one.prompt;
    set.update();
    take(schemaOf(one.fields()));
    json.value = written();
    valid("");
    say(`${plural(draft.fields.length, "field")} of the template “${one.label}”.`);
  }

  async function propose() {
    const proposed = await suggest(able);
    if (!proposed.length) return;
    if (jsonOnly) throw new Error("The table can't take fields while only the JSON can be edited.");
    const known = new Set(draft.fields.map((field) => field.name));
    draft.fields.push(...proposed.filter((field) => !known.has(field.name)));
    drawTable();
    table.changed();
  }

  const file = h("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-hidden": "true", tabindex: "-1" });
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen || !(await replace(`those of ${chosen.name}`))) return;
    json.value = await chosen.text();
    json.dispatchEvent(new Event("input"));
  });
  const bring = button("Import", () => file.click(), { kind: "quiet" });
  const give = button("Export", () => save(new Blob([json.value], { type: "application/schema+json" }), `${draft.name.trim() || "fields"}.schema.json`), { kind: "quiet" });

  const tryIt = button("Next: try on three", () => (keep(), (location.hash = "#/try")), { kind: "primary" });
  const all = button("Read all", () => startRun(main, able));
  const start = h("div", { class: "templates", role: "group", "aria-label": "Templates" }, TEMPLATES.map((one) => button(one.label, () => use(one))), button("Suggest from three pictures", propose, { class: "button suggest" }));
  const cannot = h("div", {});

  function refresh() {
    const can = able.models.find((one) => one.name === draft.model)?.can ?? able.models.find((one) => one.default)?.can ?? able.models[0]?.can ?? {};
    fill(cannot, can.schema === false ? notice("warn", `${able.engine} reads the text of a picture and fills no fields, so the fields here have no effect. Another engine fills them: see ENGINE in the service's settings.`) : null);
    const why = can.schema === false ? `${able.engine} fills no fields.` : usable().length ? "" : "Add pictures first.";
    disable(start.lastChild, why);
    changed();
  }

  function changed() {
    keep();
    disable(give, draft.schema ? "" : "There is no field yet.");
    const faults = jsonOnly ? new Map() : faultsOf(draft.fields);
    table.mark(faults);
    const count = usable().length;
    const why = json.getAttribute("aria-invalid") === "true" ? "The JSON Schema has an error." : [...faults.values()][0] ?? (count ? "" : "Add pictures first.");
    disable(tryIt, why);
    disable(all, why);
    fill(all, count ? `Read all ${count}` : "Read all");
    fill(said, why ? h("p", { class: "hint" }, why) : null);
  }

  fill(main, stepper("fields"),
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "What should be read?"), h("p", { class: "muted" }, "Each picture becomes one record with these fields. Without fields you get text.")), h("div", {}, h("div", { class: "row" }, all, tryIt), said)),
    cannot, h("p", { class: "label" }, "Begin with a template"), start,
    h("div", { class: "split" }, h("section", { class: "card", "aria-label": "Fields" }, h("h2", {}, "Fields"), place),
      h("section", { class: "card stack", "aria-label": "JSON Schema" }, h("div", { class: "row" }, h("h2", { class: "grow" }, "JSON Schema"), bring, give, file), json, jsonSaid)),
    card(h("h2", {}, "How it is read"), set.element));
  if (draft.schema) {
    try {
      ({ fields: draft.fields, more } = fieldsOf(draft.schema));
    } catch (error) {
      draft.fields = [];
      jsonOnly = error.message;
    }
  }
  drawTable();
  json.value = written();
  valid("");
  refresh();
}
