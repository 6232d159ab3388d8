// The table of fields. Fields of a group or a list stand in a table within.

import { fill, h, newId } from "./dom.js";
import { newField, TYPES } from "./schema.js";
import { button, select } from "./ui.js";

/** `changed` is called after each change. `{draw(fields), mark(faults), changed}`: `draw` makes the table, `mark` shows what is wrong. */
export function fieldTable(changed) {
  const rows = new Map(); // field → {name, note}

  function draw(fields, above = "") {
    if (!above) rows.clear();
    const body = h("tbody", {});
    const where = above ? ` of ${above}` : "";
    const again = (focus) => {
      for (const field of rows.keys()) if (!fields.includes(field) && !above) rows.delete(field);
      fill(body, fields.map((field, at) => line(fields, field, at, again, above)));
      shown();
      changed();
      (rows.get(focus)?.name ?? add).focus();
    };
    const add = button(above ? "Add a field within" : "Add a field", () => {
      const field = newField();
      fields.push(field);
      again(field);
    }, { "aria-label": `Add a field${where}` });
    fill(body, fields.map((field, at) => line(fields, field, at, again, above)));
    const table = h("table", { class: "fields" }, h("caption", { class: "unseen" }, `Fields${where}`), h("thead", {}, h("tr", {}, ["Name", "Type", "Description", "Required", ""].map((head) => h("th", { scope: "col" }, head || h("span", { class: "unseen" }, "Actions"))))), body);
    const none = h("p", { class: "muted" }, "No fields yet. Take a template, add a field, or write a JSON Schema.");
    const shown = () => {
      none.hidden = fields.length > 0;
      table.hidden = !fields.length;
    };
    shown();
    return h("div", { class: "stack" }, none, table, h("div", {}, add));
  }

  function line(fields, field, at, again, above) {
    const of = () => field.name || `field ${at + 1}`;
    const name = h("input", { value: field.name, "aria-label": "Name", spellcheck: "false", autocapitalize: "off", placeholder: "name" });
    const note = h("p", { class: "hint bad-text", id: newId("n"), hidden: true });
    name.setAttribute("aria-describedby", note.id);
    rows.set(field, { name, note });
    const inner = h("div", { class: "inner" });
    name.addEventListener("input", () => ((field.name = name.value), changed()));
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      const made = newField();
      fields.splice(at + 1, 0, made);
      again(made);
    });
    const type = select(TYPES, field.type, (value) => {
      field.type = value;
      delete field.more;
      if (["objects", "object"].includes(value) && !field.fields?.length) field.fields = [newField()];
      within();
      changed();
    }, { "aria-label": `Type of ${of()}` });
    const about = h("input", { value: field.description, "aria-label": `Description of ${of()}`, placeholder: "What it is, for the model", on: { input: () => ((field.description = about.value), changed()) } });
    const needed = h("input", { type: "checkbox", checked: field.required, "aria-label": `${of()} is required`, on: { change: () => ((field.required = needed.checked), changed()) } });
    const move = (to) => {
      if (to < 0 || to >= fields.length) return;
      fields.splice(to, 0, ...fields.splice(at, 1));
      again(field);
    };
    const up = h("button", { type: "button", class: "icon", title: "Move up", "aria-label": `Move ${of()} up`, on: { click: () => move(at - 1) } }, "↑");
    const gone = h("button", { type: "button", class: "icon", title: "Remove", "aria-label": `Remove ${of()}`, on: { click: () => {
      fields.splice(at, 1);
      again(fields[Math.min(at, fields.length - 1)]);
    } } }, "×");

    function within() {
      if (field.type === "choice") {
        const values = h("input", { value: (field.values ?? []).join(", "), "aria-label": `Values of ${of()}`, placeholder: "red, green, blue" });
        values.addEventListener("input", () => ((field.values = [...new Set(values.value.split(",").map((value) => value.trim()).filter(Boolean))]), changed()));
        fill(inner, h("div", { class: "field" }, h("span", { class: "hint" }, "Values, with commas between"), values));
      } else if (["objects", "object"].includes(field.type)) fill(inner, draw((field.fields ??= []), `${above ? `${above}, ` : ""}${of()}`));
      else fill(inner, field.more ? h("p", { class: "hint" }, `Also in the JSON: ${Object.keys(field.more).join(", ")}`) : null);
    }
    within();
    return [h("tr", {}, h("td", {}, name, note), h("td", {}, type), h("td", {}, about), h("td", { class: "needed" }, h("label", {}, needed, h("span", { class: "phone" }, " required"))), h("td", { class: "acts" }, up, gone)), h("tr", { class: "more" }, h("td", { colspan: "5" }, inner))];
  }

  function mark(faults) {
    for (const [field, { name, note }] of rows) {
      const fault = faults.get(field) ?? "";
      name.setAttribute("aria-invalid", String(Boolean(fault)));
      note.hidden = !fault || document.activeElement === name;
      fill(note, fault);
    }
  }
  return { draw, mark, changed };
}
