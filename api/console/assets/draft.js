// What a person is preparing: pictures, fields and settings. The screens New, Fields and Try work on it.

const SETTINGS = "extract-image.draft";

/**
 * `pictures`: {id, name, file (a File or null), url (or ""), size, type, problem ("" or why it can't be used), thumb (blob: address or "")}.
 * `fields`: {name, type, description, required, values?, fields?}; `schema`: the JSON Schema of one picture's record.
 */
export const draft = {
  pictures: [],
  name: "", prompt: "", model: "", detail: "", thinking: "", tier: "standard", keepInputsSeconds: 86400, maxMoney: "", evidence: "",
  fields: [], schema: null,
};

/** Keeps the settings in this tab over a reload. Pictures are not kept: a page may not read files again by itself. */
export function keep() {
  const { pictures, ...settings } = draft;
  sessionStorage.setItem(SETTINGS, JSON.stringify(settings));
}

try {
  Object.assign(draft, JSON.parse(sessionStorage.getItem(SETTINGS) ?? "{}"));
} catch {
  sessionStorage.removeItem(SETTINGS);
}

/** The pictures that can be sent. */
export const usable = () => draft.pictures.filter((picture) => !picture.problem);

// A job's own pictures, as long as this tab is open: the review shows them without asking the service.
const originals = new Map();
/** Remembers which pictures of this tab a job was made from, in the job's order. */
export const remember = (job, pictures) => originals.set(job, pictures);
/** The picture of this tab that stands at `index` of a job, or undefined. */
export const original = (job, index) => originals.get(job)?.[index];
