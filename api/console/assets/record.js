// A record as a form: each value can be read, corrected and taken back.

import { h, newId } from "./dom.js";
import { ago, time } from "./format.js";
import { button } from "./ui.js";

const LONG = 60; // characters, from which on a text gets several lines

const escaped = (name) => String(name).replaceAll("~", "~0").replaceAll("/", "~1");
export const join = (pointer, name) => `${pointer}/${escaped(name)}`;

/** The value at a JSON Pointer; undefined if there is none. */
export function valueAt(record, pointer) {
  let value = record;
  for (const part of pointer.split("/").slice(1)) {
    if (value === null || typeof value !== "object") return undefined;
    value = Object.hasOwn(value, part.replaceAll("~1", "/").replaceAll("~0", "~")) ? value[part.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined;
  }
  return value;
}

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** A value as one short text. */
export function shown(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.every((one) => one === null || typeof one !== "object") ? value.map(shown).join(", ") : `${value.length} ${value.length === 1 ? "entry" : "entries"}`;
  if (typeof value === "object") return Object.values(value).map(shown).filter(Boolean).join(" · ");
  return String(value);
}

/** The types that a schema allows, as a set. */
function typesOf(schema) {
  const own = [schema?.type ?? []].flat();
  const inner = [...(schema?.anyOf ?? []), ...(schema?.oneOf ?? [])].flatMap((one) => [...typesOf(one)]);
  return new Set([...own, ...inner]);
}
const inside = (schema, type) => [schema, ...(schema?.anyOf ?? []), ...(schema?.oneOf ?? [])].find((one) => [one?.type].flat().includes(type)) ?? schema;

/** An entry to fill in, which fits the schema, or has the form of `like` where there is none. */
function blank(schema, like) {
  const types = typesOf(schema);
  if (types.has("object") || (!types.size && isObject(like))) {
    const kind = inside(schema, "object");
    return Object.fromEntries(Object.keys(kind?.properties ?? like ?? {}).map((name) => [name, blank(kind?.properties?.[name], like?.[name])]));
  }
  if (schema?.enum) return schema.enum[0];
  if (types.has("null")) return null;
  if (types.has("array") || Array.isArray(like)) return [];
  if (types.has("number") || types.has("integer") || typeof like === "number") return 0;
  return types.has("boolean") || typeof like === "boolean" ? false : "";
}

/**
 * The form. `item`: of the API; `schema`: of the record, or null; `change(pointer, value)` stores a correction, and raises what is wrong;
 * `chosen(pointer)` is called when a value gets the focus.
 */
export function recordForm({ item, schema, change, chosen }) {
  const original = item.result;
  const record = item.corrections?.record ?? original;
  const changes = new Map((item.corrections?.changes ?? []).map((one) => [one.pointer, one]));

  function part(pointer, name, value, kind, required) {
    if (isObject(value)) return group(pointer, name, Object.entries({ ...Object.fromEntries(Object.keys(kind?.properties ?? {}).map((key) => [key, null])), ...value }).map(([key, one]) => part(join(pointer, key), key, one, inside(kind, "object")?.properties?.[key], inside(kind, "object")?.required?.includes(key))));
    if (Array.isArray(value)) return list(pointer, name, value, inside(kind, "array")?.items);
    return leaf(pointer, name, value, kind, required);
  }

  function group(pointer, name, parts) {
    return pointer ? h("fieldset", { class: "group" }, h("legend", {}, name), parts) : h("div", { class: "values" }, parts);
  }

  function list(pointer, name, values, kind) {
    const entries = values.map((value, at) => h("div", { class: "entry" }, part(join(pointer, at), `${name} ${at + 1}`, value, kind),
      button("Remove", () => change(pointer, values.filter((_, other) => other !== at)), { kind: "quiet", "aria-label": `Remove ${name} ${at + 1}` })));
    return h("fieldset", { class: "group" }, h("legend", {}, name, h("span", { class: "muted" }, ` ${values.length}`)), entries, trace(pointer, name),
      button("Add an entry", () => change(pointer, [...values, blank(kind, values[0])]), { kind: "quiet", "aria-label": `Add an entry to ${name}` }));
  }

  function leaf(pointer, name, value, kind, required = true) {
    const types = typesOf(kind);
    const fault = h("p", { class: "fault", role: "alert" });
    const control = controlOf(value, kind, types);
    control.id = newId("v");
    fault.id = `${control.id}-fault`;
    control.dataset.pointer = pointer;
    control.setAttribute("aria-describedby", fault.id);
    control.addEventListener("focus", () => chosen(pointer));
    const stored = control.value;
    const store = async () => {
      if (control.value === stored && !control.hasAttribute("aria-invalid")) return;
      try {
        const next = valueOf(control.value, value, types, kind);
        if (same(next, value)) {
          control.removeAttribute("aria-invalid");
          fault.textContent = "";
        } else await change(pointer, next);
      } catch (error) {
        if (error.name === "AbortError") return;
        control.setAttribute("aria-invalid", "true");
        fault.textContent = error.message;
      }
    };
    control.addEventListener("change", store);
    control.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (control.tagName !== "TEXTAREA" || event.ctrlKey)) {
        event.preventDefault();
        if (control.value === stored) control.blur();
        control.dispatchEvent(new CustomEvent("done", { bubbles: true }));
      }
      if (event.key === "Escape") {
        control.value = stored;
        control.dispatchEvent(new CustomEvent("done", { bubbles: true }));
      }
    });
    const note = kind?.description ? h("span", { class: "muted note" }, kind.description) : null;
    return h("div", { class: "value" }, h("label", { for: control.id }, name, required === false ? null : null, note), control, fault, trace(pointer, name));
  }

  /** What was there before a correction, who corrected it and when. */
  function trace(pointer, name) {
    const last = changes.get(pointer);
    const was = valueAt(original, pointer);
    const is = valueAt(record, pointer);
    if (!last || same(was, is)) return null;
    return h("p", { class: "trace" }, "Read as ", h("q", {}, shown(was) || "nothing"), `. Corrected by ${last.by}, `, h("time", { datetime: last.at, title: time(last.at) }, ago(last.at)), ". ",
      was === undefined ? null : h("button", { type: "button", class: "linkish", "aria-label": `Undo the correction of ${name}`, on: { click: () => change(pointer, was).catch(() => {}) } }, "Undo"));
  }

  return h("form", { class: "record", "aria-label": "Record", on: { submit: (event) => event.preventDefault() } }, isObject(record) || Array.isArray(record) ? part("", "Entry", record, schema) : leaf("", "Result", record, schema));
}

function controlOf(value, kind, types) {
  const choices = kind?.enum ?? (typeof value === "boolean" || types.has("boolean") ? [true, false] : null);
  if (choices) {
    const all = [...choices, ...(choices.includes(value) ? [] : [value]), ...(types.has("null") && !choices.includes(null) && value !== null ? [null] : [])];
    const control = h("select", {}, all.map((one) => h("option", { value: JSON.stringify(one ?? null), selected: same(one ?? null, value ?? null) }, one === null || one === undefined ? "nothing" : one === true ? "yes" : one === false ? "no" : String(one))));
    control.dataset.choice = "1";
    return control;
  }
  const text = value === null || value === undefined ? "" : String(value);
  const empty = value === null || value === undefined ? "nothing" : "";
  if (text.length > LONG || text.includes("\n")) return h("textarea", { rows: Math.min(8, Math.ceil(text.length / 50)), value: text, placeholder: empty });
  const isNumber = typeof value === "number" || types.has("number") || types.has("integer");
  return h("input", { type: "text", autocomplete: "off", spellcheck: isNumber ? "false" : "true", inputmode: isNumber ? "decimal" : "text", value: text, placeholder: empty });
}

/** The value that a person wrote. A number may have a decimal comma. */
function valueOf(text, before, types, kind) {
  if (kind?.enum || typeof before === "boolean" || types.has("boolean")) return JSON.parse(text);
  const wantsNumber = typeof before === "number" || types.has("number") || types.has("integer");
  if (text.trim() === "" && (before === null || types.has("null") || (wantsNumber && !types.has("string")))) return null;
  if (!wantsNumber) return text;
  const plain = text.trim().replaceAll(/[\s']/g, "");
  const number = /^-?\d+,\d+$/.test(plain) ? plain.replace(",", ".") : plain;
  if (/^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(number)) return Number(number);
  if (types.has("string")) return text;
  throw new Error(`“${text}” is no number. Write it like 12.50.`);
}
