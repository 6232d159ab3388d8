// A record as a form: each value can be read, corrected and taken back.

import { h, newId } from "./dom.js";
import { isNumber, isObject, numberOf, read, write } from "./json.js";
import { button, when } from "./ui.js";

const LONG = 60; // characters, from which on a text gets several lines
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i;
const DECIMAL_COMMA = /^-?(0,\d+|\d+,(\d\d?|\d{4,}))$/; // 1,234 can mean two numbers, so it is refused

export const join = (pointer, name) => `${pointer}/${String(name).replaceAll("~", "~0").replaceAll("/", "~1")}`;

/** The value at a JSON Pointer; undefined if there is none. */
export function valueAt(record, pointer) {
  let value = record;
  for (const part of pointer.split("/").slice(1)) {
    const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
    value = value instanceof Object && Object.hasOwn(value, name) ? value[name] : undefined;
  }
  return value;
}

/** Whether a value is where the OCR engine saw a text: four corners, in pixels. Nobody corrects that. */
export const isBox = (value) => Array.isArray(value) && value.length === 4 && value.every((corner) => corner?.length === 2 && corner.every(isNumber));
export const same = (one, other) => write(one) === write(other);

/** A value as one short text. */
export function shown(value) {
  if (Array.isArray(value)) return value.some((one) => one instanceof Object && !isNumber(one)) ? `${value.length} ${value.length === 1 ? "entry" : "entries"}` : value.map(shown).join(", ");
  if (isObject(value)) return Object.values(value).map(shown).filter(Boolean).join(" · ");
  return String(value ?? "");
}

/** The schema and its alternatives. */
const branches = (schema) => (schema ? [schema, ...[...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].flatMap(branches)] : []);
/** The types that a schema allows, as a set. */
const typesOf = (schema) => new Set(branches(schema).flatMap((one) => one.type ?? []));
const inside = (schema, type) => branches(schema).find((one) => [one.type].flat().includes(type)) ?? schema;

/** An entry to fill in, which fits the schema, or has the form of `like` where there is none. */
function blank(schema, like) {
  const types = typesOf(schema);
  if (types.has("object") || (!types.size && isObject(like))) {
    const members = inside(schema, "object")?.properties;
    return Object.fromEntries(Object.keys(members ?? like ?? {}).map((name) => [name, blank(members?.[name], like?.[name])]));
  }
  if (schema?.enum) return schema.enum[0];
  if (types.has("null")) return null;
  if (types.has("array") || Array.isArray(like)) return [];
  if (types.has("number") || types.has("integer") || isNumber(like)) return 0;
  return types.has("boolean") || typeof like === "boolean" ? false : "";
}

/**
 * The form. `item`: of the API; `schema`: of the record, or null; `change(pointer, value)` stores a correction, and raises what is wrong;
 * `chosen(pointer)` is called when a value gets the focus.
 */
export function recordForm({ item, schema, change, chosen }) {
  const original = item.result;
  const record = item.corrections?.record ?? original;
  const changes = new Map(item.corrections?.changes.map((one) => [one.pointer, one]));

  function part(pointer, name, value, kind) {
    const group = (...parts) => h("fieldset.group", parts);
    if (isObject(value)) {
      const members = inside(kind, "object")?.properties;
      const parts = [...new Set([...Object.keys(members ?? {}), ...Object.keys(value)])].filter((key) => !isBox(value[key])).map((key) => part(join(pointer, key), key, valueAt(value, join("", key)), members?.[key]));
      return pointer ? group(h("legend", name), parts) : h("div.values", parts);
    }
    if (!Array.isArray(value)) return leaf(pointer, name, value, kind);
    const each = inside(kind, "array")?.items;
    const act = (label, whole, next) => button(label, () => change(pointer, next), { kind: "quiet", "aria-label": whole, title: whole });
    return group(h("legend", name, h("span.muted", ` ${value.length}`)),
      value.map((one, at) => h("div.member", part(join(pointer, at), `${name} ${at + 1}`, one, each), act("✕", `Remove ${name} ${at + 1}`, value.filter((_, other) => other !== at)))),
      trace(pointer, name), act("Add an entry", `Add an entry to ${name}`, [...value, blank(each, value[0])]));
  }

  function leaf(pointer, name, value, kind) {
    const id = newId("v");
    const fault = h("p.fault", { role: "alert", id: `${id}-fault` });
    const note = kind?.description && h("span.note", { id: `${id}-note` }, kind.description);
    const props = { id, "aria-describedby": `${note ? note.id : ""} ${fault.id}`, data: { pointer } };
    const [control, valueOf] = controlOf(value, kind, props);
    const stored = control.value;
    const done = () => control.dispatchEvent(new CustomEvent("done", { bubbles: true }));
    const blame = (text) => {
      fault.textContent = text;
      control.ariaInvalid = text ? "true" : null;
    };
    control.onfocus = () => chosen(pointer);
    control.onchange = async () => {
      try {
        const next = valueOf(control.value);
        blame("");
        if (!same(next, value ?? null)) await change(pointer, next);
      } catch (error) {
        if (error.name !== "AbortError") blame(error.message);
      }
    };
    control.onkeydown = (event) => {
      if (event.key === "Enter" && (control.tagName !== "TEXTAREA" || event.ctrlKey)) {
        event.preventDefault();
        control.blur();
        done();
      } else if (event.key === "Escape") {
        control.value = stored;
        blame("");
        done();
      }
    };
    const seen = item.evidence?.[pointer];
    const doubt = item.unsupported?.includes(pointer) ? `! Not seen in the picture${seen?.text ? `, which has “${seen.text}” there` : ""}.` : seen?.match === "fuzzy" && `! The picture seems to have “${seen.text}”.`;
    return h("div.value", h("label", { for: id }, name), note, control, doubt && h("p.note.doubt", doubt), fault, trace(pointer, name));
  }

  /** What was there before a correction, who corrected it and when. */
  function trace(pointer, name) {
    const last = changes.get(pointer);
    const was = valueAt(original, pointer);
    if (!last || same(was, valueAt(record, pointer))) return null;
    return h("p.trace", "Read as ", h("q", shown(was) || "nothing"), `. Corrected by ${last.by}, `, when(last.at), ". ",
      was !== undefined && button("Undo", () => change(pointer, was), { kind: "quiet", "aria-label": `Undo the correction of ${name}` }));
  }

  return h("form.record", { "aria-label": "Record", on: { submit: (event) => event.preventDefault() } }, part("", isObject(record) ? "" : Array.isArray(record) ? "Entry" : "Result", record, schema));
}

/** The control for a value, and the function that makes a value of what a person wrote in it. */
function controlOf(value, kind, props) {
  const types = typesOf(kind);
  const stored = write(value ?? null);
  const choices = kind?.enum ?? (typeof value === "boolean" || types.has("boolean") ? [true, false] : null);
  if (choices) {
    const all = new Set([...choices, ...(types.has("null") ? [null] : [])].map((one) => write(one)).concat(stored));
    return [h("select", props, [...all].map((one) => h("option", { value: one, selected: one === stored }, { null: "nothing", "true": "yes", "false": "no" }[one] ?? String(read(one))))), read];
  }
  const text = String(value ?? "");
  const wantsNumber = isNumber(value) || types.has("number") || types.has("integer");
  const mayLack = stored === "null" || types.has("null") || (wantsNumber && !types.has("string"));
  const valueOf = (written) => {
    if (mayLack && !written.trim()) return null;
    if (!wantsNumber) return written;
    const plain = written.replaceAll(/[\s']/g, "");
    const number = (DECIMAL_COMMA.test(plain) ? plain.replace(",", ".") : plain).replace(/^(-?)0+(?=\d)/, "$1");
    if (NUMBER.test(number)) return numberOf(number);
    if (types.has("string")) return written;
    throw new Error(`“${written}” is no number. Write it like 12.50.`);
  };
  const more = { ...props, value: text, placeholder: stored === "null" && "nothing" };
  if (text.length > LONG || text.includes("\n")) return [h("textarea", { rows: Math.min(8, Math.ceil(text.length / 50)), ...more }), valueOf];
  return [h("input", { autocomplete: "off", spellcheck: String(!wantsNumber), inputmode: wantsNumber && "decimal", ...more }), valueOf];
}
