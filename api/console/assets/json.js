// JSON whose numbers keep their digits. JSON.parse alone makes 9007199254740992 of 9007199254740993, and 1.1 of 1.10.

import * as api from "./api.js";

const MARK = `exact-${crypto.getRandomValues(new Uint32Array(4)).join("")}-`; // no text of a stranger can hold it

/** A number that the browser would write in other digits than `text`. */
class Exact {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
  toJSON() {
    return MARK + this.text;
  }
}

/** The number that these digits mean: an Exact if the browser's own number would lose some. */
export const numberOf = (text) => (String(Number(text)) === text ? Number(text) : new Exact(text));
export const isNumber = (value) => typeof value === "number" || value instanceof Exact;
export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && !isNumber(value);

/** As JSON.parse does, with an Exact in place of a number that would lose digits. */
export function read(text) {
  const marked = text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[^\s,\]}]*/g, (part) => (part[0] === '"' || String(Number(part)) === part ? part : `"${MARK}${part}"`));
  return JSON.parse(marked, (_, value) => (typeof value === "string" && value.startsWith(MARK) ? new Exact(value.slice(MARK.length)) : value));
}

/** As JSON.stringify does, with the digits that were read. */
export const write = (value, indent = undefined) => JSON.stringify(value, null, indent)?.replaceAll(new RegExp(`"${MARK}([^"]*)"`, "g"), "$1");

/** As `api.call` does, with the digits of all numbers. */
export async function call(path, { json, ...options } = {}) {
  const body = json === undefined ? {} : { body: write(json), more: { "Content-Type": "application/json" } };
  return read(await (await api.blob(path, { ...options, ...body })).text());
}
