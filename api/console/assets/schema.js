// The table of fields and the JSON Schema of one picture's record, each made from the other. No screen.

/** The types that the table shows: [id, name]. A field of the last one is shown, and its JSON stays as it is. */
export const TYPES = [["text", "Text"], ["number", "Number"], ["integer", "Whole number"], ["boolean", "Yes or no"], ["date", "Date"], ["choice", "One of a list"], ["texts", "List of texts"], ["objects", "List of entries"], ["object", "Group of fields"], ["json", "As in the JSON"]];
/** A type of the table → that of JSON Schema. `json` has none. */
const KINDS = { text: "string", number: "number", integer: "integer", boolean: "boolean", date: "string", choice: "string", texts: "array", objects: "array", object: "object" };

/** Whether a field has fields within. */
export const nests = (field) => /^object/.test(field.type);

/** A field may also have `nullable`, and keywords that the table doesn't show: `more` of its own, `inner` of the entries of a list. */
export const newField = (name = "", type = "text") => ({ name, type, description: "", required: true, values: [], fields: [] });

/** The schema of these fields. `more`: other keywords of the whole schema, which stay as they are. */
export function schemaOf(fields, more = {}) {
  const named = fields.map((field) => [field.name.trim(), field]).filter(([name]) => name);
  const required = named.filter(([, field]) => field.required).map(([name]) => name);
  return { ...more, type: "object", properties: Object.fromEntries(named.map(([name, field]) => [name, partOf(field)])), ...(required.length && { required }) };
}

function partOf({ type, nullable, description, values, fields, more, inner }) {
  const kind = KINDS[type];
  return {
    ...(type === "object" && schemaOf(fields)),
    type: nullable ? [kind, "null"] : kind,
    ...(type === "date" && { format: "date" }),
    ...(type === "choice" && { enum: nullable ? [...values, null] : values }),
    ...(description && { description }),
    ...(type === "texts" && { items: { type: "string" } }),
    ...(type === "objects" && { items: schemaOf(fields, inner) }),
    ...more,
  };
}

/** The fields of a schema, and its other keywords: `{fields, more}`. Raises Error with why no table can show it. */
export function fieldsOf({ type, properties, required = [], ...more }) {
  if (type !== "object") throw new Error('The whole schema must have "type": "object", because each picture gives one record.');
  const needed = [required].flat();
  const fields = Object.entries(properties ?? {}).map(([name, part]) => fieldOf(name, part, needed.includes(name)));
  const stray = needed.find((name) => !fields.some((field) => field.name === name));
  if (stray !== undefined) throw new Error(`"required" names ${JSON.stringify(stray)}, which is no field.`);
  return { fields, more };
}

function fieldOf(name, part, required) {
  if (Object(part) !== part) throw new Error(`“${name}” must be an object, in { }.`);
  const { description, ...more } = part;
  try {
    const field = { ...newField(name), required, description, ...typed(more) };
    const made = partOf(field);
    field.more = Object.fromEntries(Object.entries(more).filter(([keyword]) => !(keyword in made || keyword === "required")));
    // What the table shows must say all that the schema says.
    if (alike(partOf(field)) === alike(part)) return field;
  } catch {
    // Something within is more than a table shows.
  }
  return { ...newField(name, "json"), required, description, more };
}

/** What the keywords of a field say in the table's words. */
function typed({ type, format, enum: values, items, properties, required }) {
  const kinds = [type].flat();
  const [kind] = kinds.filter((one) => one !== "null");
  const as = (type, props) => ({ type, nullable: kinds.length > 1, ...props });
  if (values) return as("choice", { values: values.filter((value) => value !== null).map(String) });
  if (kind === "string") return as(format === "date" ? "date" : "text");
  if (kind === "object") return as(kind, fieldsOf({ type: kind, properties, required }));
  if (kind !== "array") return as(kind ?? "json");
  if (items.type !== "object") return as("texts");
  const { fields, more } = fieldsOf(items);
  return as("objects", { fields, inner: more });
}

/** A text that is the same for schemas that mean the same. */
const alike = (schema) => JSON.stringify(schema, (key, value) => {
  if (Array.isArray(value)) return !/^(type|required|enum)$/.test(key) ? value : value.length > 1 ? [...value].sort() : value[0];
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
  return key === "description" ? value || undefined : value;
});

/** Parses JSON. Raises Error with the line, and with `at`: the place in the text. Browsers tell neither each time. */
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    const [at, what] = faultIn(text);
    throw Object.assign(new Error(`Line ${text.slice(0, at).split("\n").length}: ${what} is expected here.`), { at: at + 1 });
  }
}

const STRING = /^"(?:[^"\\\0-\x1f]|\\(?:["\\/bfnrt]|u[\da-f]{4}))*"/i;
const VALUE = new RegExp(`^[{[]|${STRING.source}|^-?(?:0|[1-9]\\d*)(?:\\.\\d+)?(?:e[+-]?\\d+)?|^(?:true|false|null)`, "i");

/** Where a text ends to be JSON, and what is expected there. */
function faultIn(text) {
  let at = 0;
  const eat = (pattern, expected) => {
    at += /^\s*/.exec(text.slice(at))[0].length;
    const [found] = pattern.exec(text.slice(at)) ?? [];
    if (found === undefined && expected) throw expected;
    at += found?.length ?? 0;
    return found;
  };
  const value = () => {
    const open = eat(VALUE, "a value");
    const close = { "{": /^}/, "[": /^]/ }[open];
    if (!close || eat(close)) return;
    do {
      if (open === "{") eat(STRING, 'a name in "quotes"'), eat(/^:/, "a colon");
      value();
    } while (eat(/^,/));
    eat(close, "a comma or a closing bracket");
  };
  try {
    value();
    eat(/^$/, "nothing more");
  } catch (expected) {
    return [at, expected];
  }
}

/** What is wrong with the fields, by field. */
export function faultsOf(fields, found = new Map()) {
  const seen = new Set();
  for (const field of fields) {
    const name = field.name.trim();
    const fault = !name ? "Give this field a name."
      : seen.has(name) ? `Two fields have the name “${name}”.`
      : field.type === "choice" && !field.values.length ? `Say which values “${name}” may have.`
      : nests(field) && !field.fields.length ? `Add a field to “${name}”.` : "";
    if (fault) found.set(field, fault);
    seen.add(name);
    if (nests(field)) faultsOf(field.fields, found);
  }
  return found;
}

/** A record's values in one line each: [name, text]. */
export const linesOf = (value) => (value && typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : [["text", value]]).map(([name, inner]) => [name, shown(inner)]);

function shown(value) {
  if (Array.isArray(value)) return value.map(shown).join("\n");
  if (value && typeof value === "object") return linesOf(value).map((pair) => pair.join(": ")).join(", ");
  return value === true ? "yes" : value === false ? "no" : String(value ?? "");
}
