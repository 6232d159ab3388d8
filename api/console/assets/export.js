// The records as files, and the run as code.

import * as api from "./api.js";
import { open } from "./batch.js";
import { CODES } from "./code.js";
import { fill, h } from "./dom.js";
import { number, plural } from "./format.js";
import { stepper } from "./stepper.js";
import { button, card, code, empty, notice, save, say, tabs } from "./ui.js";

export const title = "Export";

const FORMS = [["csv", "CSV", "A table for any spreadsheet or database."], ["xlsx", "Excel", "A workbook: numbers are numbers."], ["jsonl", "JSONL", "A record a line, for programs."]];

export async function show(main, { rest, signal }) {
  const run = await open(main, rest[0], signal);
  if (!run) return;
  const head = [stepper("export", { run: run.id }), h("h1", {}, run.name ? `Export ${run.name}` : "Export")];
  const requests = await Promise.all(run.jobs.map((job) => api.call(`api/v1/jobs/${job.id}/request`, { signal })));
  const program = asCode(run, requests, signal);
  if (!run.ended) return void fill(main, head, h("div", { class: "stack" }, empty("The run still works", "Its records can be exported when it has ended.", h("a", { class: "button primary", href: `#/run/${run.href}` }, "See the run")), await program));
  const merged = requests[0].granularity !== "perImage";
  const originals = h("input", { type: "checkbox", id: "originals" });
  const files = FORMS.filter(([form]) => !(merged && form === "jsonl")).map(([form, name, what]) => h("div", { class: "export-form" }, h("h3", {}, name), h("p", { class: "muted" }, what, run.jobs.length > 1 && form === "xlsx" ? ` This run has ${plural(run.jobs.length, "job")}, so you get a workbook for each.` : ""),
    button(`Download ${name}`, () => download(run, form, originals.checked, signal), { kind: "primary" })));
  const corrected = await count(run, signal);
  fill(main, head, h("div", { class: "stack" },
    run.succeeded ? card(h("h2", {}, `${plural(run.succeeded, "record")} as a file`), run.failed ? notice("warn", `${plural(run.failed, "picture")} failed. They are in the files too, with the reason.`) : null, h("div", { class: "columns exports" }, files),
      merged ? null : h("p", { class: "hint" }, h("label", { for: "originals", class: "row" }, originals, "As the model read them, without corrections")), merged ? null : h("p", { class: "hint" }, corrected ? `${plural(corrected, "record")} checked. Corrections are in the files unless you choose otherwise.` : "Nothing is checked yet. Review shows each record beside its picture."))
      : empty("There is no record", "No picture of this run was read.", h("a", { class: "button primary", href: `#/run/${run.href}` }, "See why")),
    await program));
}

/** How many pictures of the run are checked. */
async function count(run, signal) {
  let found = 0;
  for (const job of run.jobs) for await (const page of api.pages(`api/v1/jobs/${job.id}/items`, "items", { checked: "true", limit: 1000 }, signal)) found += page.length;
  return found;
}

async function download(run, form, originals, signal) {
  const path = (job) => `api/v1/jobs/${job.id}/results${api.query({ format: form, corrections: originals ? "none" : "" })}`;
  const name = (run.name.replaceAll(/[^\p{L}\p{N}._ -]/gu, "").trim() || run.id.replace("batch:", "")).slice(0, 80);
  const ready = run.jobs.filter((job) => job.counts.succeeded || run.jobs.length === 1);
  if (ready.length === 1 && run.jobs.length === 1) return save(await api.blob(path(ready[0]), { signal }), `${name}.${form}`);
  if (form === "xlsx") {
    for (const [at, job] of ready.entries()) save(await api.blob(path(job), { signal }), `${name}-${at + 1}.xlsx`);
    return say(`${plural(ready.length, "workbook")}, one for each job.`);
  }
  const texts = [];
  for (const job of ready) texts.push([await (await api.blob(path(job), { signal })).text(), run.offsets[run.jobs.indexOf(job)]]);
  save(new Blob([form === "csv" ? joinedCsv(texts) : joinedLines(texts)], { type: form === "csv" ? "text/csv" : "application/jsonl" }), `${name}.${form}`);
}

/** Lines of several jobs, numbered through. Only the number is changed, so that every value keeps the digits that it has. */
const joinedLines = (texts) => texts.map(([text, offset]) => text.replaceAll(/^\{"index":\s*(\d+)/gm, (_, index) => `{"index":${Number(index) + offset}`)).join("");

/** Tables of several jobs under one header with all their columns, numbered through. */
export function joinedCsv(texts) {
  const tables = texts.map(([text, offset]) => [parsed(text), offset]);
  const columns = [...new Set(tables.flatMap(([rows]) => rows[0] ?? []))];
  const lines = [columns];
  for (const [[header, ...rows], offset] of tables) {
    const places = columns.map((name) => header.indexOf(name));
    for (const row of rows) lines.push(places.map((place, at) => (place < 0 ? "" : columns[at] === "index" ? String(Number(row[place]) + offset) : row[place])));
  }
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return `\ufeff${lines.map((row) => row.map(quoted).join(",")).join("\r\n")}\r\n`;
}

/** The rows of a CSV (RFC 4180). */
function parsed(text) {
  const rows = [];
  let row = [];
  for (const [, quoted, plain, end] of text.replace(/^\ufeff/, "").matchAll(/(?:"((?:[^"]|"")*)"|([^,\r\n]*))(,|\r?\n|$)/g)) {
    if (end === "" && !row.length && !quoted && !plain) break;
    row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end === ",") continue;
    rows.push(row);
    row = [];
    if (end === "") break;
  }
  return rows;
}

async function asCode(run, requests, signal) {
  const names = run.jobs.map(() => []);
  const most = 200; // names in a command; more come from a folder
  for (const [at, job] of run.jobs.entries()) {
    const isUrl = requests[at].inputMethod === "url";
    for await (const page of api.pages(`api/v1/jobs/${job.id}/items`, "items", { limit: 1000 }, signal)) {
      names[at].push(...page.map((item) => item.source));
      if (!isUrl && names[at].length > most) break;
    }
  }
  const shown = h("div", { class: "stack" });
  const paint = (id) => {
    const [, , write] = CODES.find(([one]) => one === id);
    const { text, notes } = write({ url: api.address("").replace(/\/$/, ""), requests, names });
    fill(shown, code(text, "The code"), notes.map((note) => h("p", { class: "hint" }, note)));
  };
  paint(CODES[0][0]);
  return card(h("h2", {}, "This run as code"), h("p", { class: "muted" }, `The same request again, ${number(run.total)} pictures. Your key is not in it: put it where the code says.`), tabs("Language", CODES.map(([id, name]) => [id, name]), CODES[0][0], paint), shown);
}
