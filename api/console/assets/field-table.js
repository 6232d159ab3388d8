// The table of fields. Fields of a group or a list stand in a table within.

import { button, field as labelled, fill, h, icon, muted, newId, select } from "./build.js";
import { nests, newField, TYPES } from "./schema.js";

/** `changed` is called after each change. `{draw(fields), mark(faults), changed}`: `draw` makes the table, `mark` shows what is wrong. */
export function fieldTable(changed) {
  const rows = new Map(); // field → {name, note}

  /** `above`: the names of the fields around these. */
  function draw(fields, above = "") {
    const where = above && ` of ${above}`;
    const body = h("tbody");
    const none = muted("No fields yet. Take a template, add a field, or write a JSON Schema.");
    const table = h("table.fields", { "aria-label": `Fields${where}` }, h("thead", h("tr", ["Name", "Type", "Description", "Required"].map((head) => h("th", { scope: "col" }, head)), h("td"))), body);
    const paint = () => {
      if (!above) rows.clear();
      fill(body, fields.map((field, at) => line(fields, field, at, again, above)));
      table.hidden = !(none.hidden = fields.length > 0);
    };
    const again = (focus) => {
      paint();
      changed();
      (rows.get(focus)?.name ?? add).focus();
    };
    const add = button(above ? "Add a field within" : "Add a field", () => insert(fields, fields.length, again), { "aria-label": `Add a field${where}` });
    paint();
    return h("div.stack", none, table, h("div", add));
  }

  function insert(fields, at, again) {
    const made = newField();
    fields.splice(at, 0, made);
    again(made);
  }

  function line(fields, field, at, again, above) {
    const inner = h("div.inner");
    const note = h("p.hint.bad-text", { id: newId("n") });
    const put = (name, control = "input", event = "input", value = "value") => (control.addEventListener(event, () => ((field[name] = control[value]), label(), changed())), control);
    const name = put("name", h("input", { value: field.name, "aria-label": "Name", "aria-describedby": note.id, spellcheck: "false", autocapitalize: "off", placeholder: "name" }));
    name.addEventListener("keydown", (event) => event.key === "Enter" && insert(fields, at + 1, again));
    const type = select(TYPES.filter(([id]) => id !== "json" || field.type === id), field.type, (value) => {
      Object.assign(field, { type: value, more: {}, inner: {} });
      if (nests(field) && !field.fields.length) field.fields = [newField()];
      within();
      changed();
    });
    const about = put("description", h("input", { value: field.description ?? "", placeholder: "What it is, for the model" }));
    const needed = put("required", h("input", { type: "checkbox", checked: field.required }), "change", "checked");
    const up = icon("↑", "", () => {
      if (!at) return;
      fields.splice(at - 1, 0, ...fields.splice(at, 1));
      again(field);
    });
    const gone = icon("×", "", () => {
      fields.splice(at, 1);
      again(fields[Math.min(at, fields.length - 1)]);
    });
    const of = () => field.name || `field ${at + 1}`;
    /** The names of the controls follow the name of the field. */
    const label = () => [[type, "Type of *"], [about, "Description of *"], [needed, "* is required"], [up, "Move * up"], [gone, "Remove *"]].forEach(([control, text]) => (control.ariaLabel = text.replace("*", of)));

    function within() {
      const more = Object.keys({ ...field.more, ...field.inner }).join(", ");
      const values = h("textarea", { rows: "3", value: field.values.join("\n"), on: { input: () => ((field.values = [...new Set(values.value.split("\n").map((value) => value.trim()).filter(Boolean))]), changed()) } });
      fill(inner, field.type === "choice" && labelled(`Values of ${of()}, one a line`, values), nests(field) && draw(field.fields, above ? `${above}, ${of()}` : of()), more && h("p.hint", `Also in the JSON: ${more}`));
    }
    rows.set(field, { name, note });
    label();
    within();
    return [h("tr", h("td", name, note), h("td", type), h("td", about), h("td.needed", h("label", needed, h("span.phone", " required"))), h("td.acts", up, gone)), h("tr.more", h("td", { colspan: "5" }, inner))];
  }

  function mark(faults) {
    for (const [field, { name, note }] of rows) {
      const fault = faults.get(field) ?? "";
      name.ariaInvalid = String(Boolean(fault));
      note.hidden = !fault || document.activeElement === name;
      fill(note, fault);
    }
  }
  return { draw, mark, changed };
}
