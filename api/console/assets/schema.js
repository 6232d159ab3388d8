// The table of fields and the JSON Schema of one picture's record, each made from the other. No screen.

/** The types that the table shows. */
export const TYPES = [["text", "Text"], ["number", "Number"], ["integer", "Whole number"], ["boolean", "Yes or no"], ["date", "Date"], ["choice", "One of a list"], ["texts", "List of texts"], ["objects", "List of entries"], ["object", "Group of fields"]];
const PLAIN = { text: "string", number: "number", integer: "integer", boolean: "boolean" };
const DECIDING = /^(\$ref|\$defs|definitions|(any|one|all)Of|not|if|then|else|patternProperties|dependent.*|prefixItems|const|propertyNames|unevaluated.*)$/;

export const newField = (name = "", type = "text") => ({ name, type, description: "", required: true, values: [], fields: [] });

/** The schema of these fields. `more`: other keywords of the whole schema, which stay as they are. */
export function schemaOf(fields, more = {}) {
  const named = fields.filter((field) => field.name.trim());
  const required = named.filter((field) => field.required).map((field) => field.name.trim());
  return { ...more, type: "object", properties: Object.fromEntries(named.map((field) => [field.name.trim(), partOf(field)])), ...(required.length ? { required } : {}) };
}

function partOf(field) {
  const about = field.description ? { description: field.description } : {};
  const kind = (type) => ({ type: field.nullable ? [type, "null"] : type });
  const more = field.more ?? {};
  if (field.type === "date") return { ...kind("string"), format: "date", ...about, ...more };
  if (field.type === "choice") return { ...kind("string"), enum: [...(field.values ?? []), ...(field.nullable ? [null] : [])], ...about, ...more };
  if (field.type === "texts") return { ...kind("array"), ...about, items: { type: "string" }, ...more };
  if (field.type === "objects") return { ...kind("array"), ...about, items: schemaOf(field.fields ?? [], field.inner), ...more };
  if (field.type === "object") return { ...schemaOf(field.fields ?? [], field.inner), ...kind("object"), ...about, ...more };
  return { ...kind(PLAIN[field.type] ?? "string"), ...about, ...more };
}

/** The fields of a schema, and its other keywords: `{fields, more}`. Raises Error with what the table can't show. */
export function fieldsOf(schema) {
  const { type, properties, required = [], ...more } = plainObject(schema, "The schema");
  if (type !== "object") throw new Error('The whole schema must have "type": "object", because each picture gives one record.');
  const structure = structural(more);
  if (structure) throw new Error(`The table can't show "${structure}".`);
  if (!Array.isArray(required)) throw new Error('"required" must be a list of names.');
  const entries = Object.entries(properties === undefined ? {} : plainObject(properties, '"properties"'));
  const stray = required.find((name) => !entries.some(([known]) => known === name));
  if (stray !== undefined) throw new Error(`"required" names ${JSON.stringify(stray)}, which is no field.`);
  return { fields: entries.map(([name, part]) => fieldOf(name, part, required.includes(name))), more };
}

function fieldOf(name, part, required) {
  plainObject(part, `“${name}”`);
  const types = [part.type].flat();
  const nullable = types.length === 2 && types.includes("null");
  const type = nullable ? types.find((one) => one !== "null") : types.length === 1 ? types[0] : undefined;
  const fault = (what) => new Error(`The table can't show “${name}”: ${what}.`);
  const field = { ...newField(name), required, description: typeof part.description === "string" ? part.description : "" };
  if (nullable) field.nullable = true;
  const used = new Set(["type", "description"]);
  const take = (keyword) => (used.add(keyword), part[keyword]);
  if (part.enum !== undefined) {
    const values = take("enum");
    if (!Array.isArray(values) || type !== "string") throw fault('a list of values needs "type": "string"');
    field.values = values.filter((value) => value !== null);
    if (field.values.some((value) => typeof value !== "string") || (values.length !== field.values.length) !== nullable) throw fault("its values are not all texts");
    field.type = "choice";
  } else if (type === "string") {
    field.type = part.format === "date" ? (take("format"), "date") : "text";
  } else if (type === "number" || type === "integer" || type === "boolean") {
    field.type = type;
  } else if (type === "array") {
    const items = plainObject(take("items"), `The items of “${name}”`);
    if (items.type === "string" && Object.keys(items).length === 1) field.type = "texts";
    else if (items.type === "object") Object.assign(field, { type: "objects" }, inside(items, name));
    else throw fault("its items are neither plain texts nor objects");
  } else if (type === "object") {
    for (const keyword of ["properties", "required", "additionalProperties"]) used.add(keyword);
    const { properties, required: needed, additionalProperties } = part;
    Object.assign(field, { type: "object" }, inside({ type, ...given({ properties, required: needed, additionalProperties }) }, name));
  } else throw fault(part.type === undefined ? 'it has no "type"' : `its type is ${JSON.stringify(part.type)}`);
  const more = Object.fromEntries(Object.entries(part).filter(([keyword]) => !used.has(keyword)));
  const structure = structural(more);
  if (structure) throw fault(`it has "${structure}"`);
  if (Object.keys(more).length) field.more = more;
  return field;
}

const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

function inside(schema, name) {
  try {
    const { fields, more } = fieldsOf(schema);
    return Object.keys(more).length ? { fields, inner: more } : { fields };
  } catch (error) {
    throw new Error(`In “${name}”: ${error.message}`);
  }
}

/** The first of these keywords that decides what a record looks like. The others, such as "maxLength", are kept unseen. */
function structural(more) {
  return Object.keys(more).find((keyword) => DECIDING.test(keyword) || (keyword === "additionalProperties" && typeof more[keyword] === "object"));
}

function plainObject(value, what) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error(`${what} must be an object, in { }.`);
  return value;
}

/** Parses JSON. Raises Error with the line, and with `at`: the place in the text. Browsers tell neither each time. */
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    const [at, what] = faultIn(text);
    throw Object.assign(new Error(`Line ${text.slice(0, at).split("\n").length}: ${what} is expected here.`), { at: at + 1 });
  }
}

function faultIn(text) {
  const token = /\s*(?:([{}[\],:])|("(?:[^"\\\0-\x1f]|\\(?:["\\/bfnrt]|u[\da-f]{4}))*")|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?|true|false|null)/iy;
  const EXPECTED = { value: "a value", name: 'a name in "quotes"', ":": "a colon", next: "a comma or a closing bracket", end: "nothing more" };
  const open = [];
  for (let want = "value", first = false; ; ) {
    const from = token.lastIndex;
    const found = token.exec(text);
    const [, sign, name] = found ?? [];
    const at = from + /^\s*/.exec(text.slice(from))[0].length;
    const closes = sign && sign === { "{": "}", "[": "]" }[open.at(-1)] && (want === "next" || first);
    if (!found) return [at, EXPECTED[want]];
    if (closes) {
      open.pop();
      want = open.length ? "next" : "end";
    } else if (want === "value" && (!sign || sign === "{" || sign === "[")) {
      if (sign) open.push(sign);
      first = Boolean(sign);
      want = sign === "{" ? "name" : sign ? "value" : open.length ? "next" : "end";
      continue;
    } else if (want === "name" && name) want = ":";
    else if (want === ":" && sign === ":") want = "value";
    else if (want === "next" && sign === ",") want = open.at(-1) === "{" ? "name" : "value";
    else return [at, EXPECTED[want]];
    first = false;
  }
}

/** What is wrong with the names of fields, by field. */
export function faultsOf(fields, found = new Map()) {
  const seen = new Set();
  for (const field of fields) {
    const name = field.name.trim();
    if (!name) found.set(field, "Give this field a name.");
    else if (seen.has(name)) found.set(field, `Two fields have the name “${name}”.`);
    else if (field.type === "choice" && !field.values?.length) found.set(field, `Say which values “${name}” may have.`);
    else if (["objects", "object"].includes(field.type) && !field.fields?.length) found.set(field, `Add a field to “${name}”.`);
    seen.add(name);
    if (["objects", "object"].includes(field.type)) faultsOf(field.fields ?? [], found);
  }
  return found;
}

/** A record's values in one line each: [name, text]. */
export function linesOf(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [["text", shownValue(value)]];
  return Object.entries(value).map(([name, inner]) => [name, shownValue(inner)]);
}
function shownValue(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map(shownValue).join("\n");
  if (typeof value === "object") return Object.entries(value).map(([name, inner]) => `${name}: ${shownValue(inner)}`).join(", ");
  return value === true ? "yes" : value === false ? "no" : String(value);
}
