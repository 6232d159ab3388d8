// The records as files, and the run as code.

import * as api from "./api.js";
import { open, unended } from "./batch.js";
import { codesOf } from "./code.js";
import { fill, h } from "./dom.js";
import { plural } from "./format.js";
import { go } from "./parts.js";
import { stepper } from "./stepper.js";
import { button, card, code, empty, head, notice, save, tabs } from "./ui.js";

export const title = "Export";

const FORMS = [["csv", "CSV", "A table for any spreadsheet or database."], ["xlsx", "Excel", "A workbook: numbers are numbers."], ["jsonl", "JSONL", "A record a line, for programs."]];
const MOST_NAMES = 200; // of a job's files, for its code

export async function show(main, { rest, signal }) {
  const run = await open(main, rest[0], signal);
  if (!run) return;
  const requests = await run.requests(signal);
  const [files, program] = await Promise.all([asFiles(run, requests, signal), asCode(run, requests, signal)]);
  fill(main, stepper("export", { run: run.id }), head(run.name ? `Export ${run.name}` : "Export"), h("div.stack", files, program));
}

/** Every item of a job, a page at a time. */
const itemsOf = (job, values, signal) => api.pages(`api/v1/jobs/${job.id}/items`, "items", { ...values, limit: 1000 }, signal);

async function asFiles(run, [{ granularity }], signal) {
  if (!run.ended) return unended(run);
  if (!run.succeeded) return empty("There is no record", "No picture of this run was read.", go("run", run, "See why"));
  const merged = granularity !== "perImage";
  const originals = h("input", { type: "checkbox", id: "originals" });
  let corrected = 0;
  for (const job of run.jobs) for await (const page of itemsOf(job, { checked: "true" }, signal)) corrected += page.length;
  const forms = FORMS.filter(([form]) => !merged || form !== "jsonl").map(([form, name, what]) => h("div.export-form", h("h3", name), h("p.muted", what, form === "xlsx" && run.jobs.length > 1 && ` You get ${plural(run.jobs.length, "workbook")}, one for each job.`), button(`Download ${name}`, () => download(run, form, originals.checked, signal), { kind: "primary" })));
  return card(`${plural(run.succeeded, "record")} as a file`, run.failed > 0 && notice("warn", `${plural(run.failed, "picture")} failed. ${run.failed === 1 ? "It is" : "They are"} in the files too, with the reason.`), h("div.columns.exports", forms),
    !merged && [h("p.hint", h("label", { for: "originals", class: "row" }, originals, "As the model read them, without corrections")), h("p.hint", corrected ? `${plural(corrected, "record")} checked. Corrections are in the files unless you choose otherwise.` : "Nothing is checked yet. Review shows each record beside its picture.")]);
}

async function download(run, form, originals, signal) {
  const name = (run.name.replaceAll(/[^\p{L}\p{N}._ -]/gu, "").trim() || run.id.replace("batch:", "")).slice(0, 80);
  const ready = run.jobs.filter((job) => job.counts.succeeded);
  const blobs = [];
  for (const job of ready) blobs.push(await api.blob(`api/v1/jobs/${job.id}/results${api.query({ format: form, corrections: originals ? "none" : "" })}`, { signal }));
  if (run.jobs.length === 1 || form === "xlsx") return blobs.forEach((blob, at) => save(blob, `${name}${blobs.length > 1 ? `-${at + 1}` : ""}.${form}`));
  const texts = await Promise.all(blobs.map(async (blob, at) => [await blob.text(), run.offsets[run.jobs.indexOf(ready[at])]]));
  save(new Blob([form === "csv" ? joinedCsv(texts) : joinedLines(texts)], { type: blobs[0].type }), `${name}.${form}`);
}

/** Lines of several jobs, numbered through. Only the number is changed, so that every value keeps the digits that it has. */
const joinedLines = (texts) => texts.map(([text, offset]) => text.replaceAll(/^\{"index":\s*(\d+)/gm, (_, index) => `{"index":${Number(index) + offset}`)).join("");

/** Tables of several jobs under one header with all their columns, numbered through. */
function joinedCsv(texts) {
  const lines = [];
  for (const [text, offset] of texts) {
    const [header, ...rows] = parsed(text);
    for (const row of rows) lines.push(new Map(header.map((name, at) => [name, name === "index" ? Number(row[at]) + offset : row[at]])));
  }
  const columns = [...new Set(lines.flatMap((line) => [...line.keys()]))];
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return `\ufeff${[columns, ...lines.map((line) => columns.map((name) => line.get(name) ?? ""))].map((row) => row.map(quoted).join(",")).join("\r\n")}\r\n`;
}

/** The rows of a CSV (RFC 4180). Each line ends with a line break. */
function parsed(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.replace(/^\ufeff/, "").matchAll(/(?:"((?:[^"]|"")*)"|([^,\r\n]*))(,|\r?\n)/g)) {
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
    if (end !== ",") rows.push([]);
  }
  return rows.slice(0, -1);
}

async function asCode(run, requests, signal) {
  const names = run.jobs.map(() => []);
  for (const [at, job] of run.jobs.entries()) {
    for await (const page of itemsOf(job, {}, signal)) {
      names[at].push(...page.map((item) => item.source));
      if (requests[at].inputMethod !== "url" && names[at].length > MOST_NAMES) break;
    }
  }
  const shown = h("div.stack");
  const codes = codesOf({ url: api.address("").replace(/\/$/, ""), requests, names });
  const paint = (id) => {
    const [, , text, notes] = codes.find(([one]) => one === id);
    fill(shown, code(text, "The code"), notes.map((note) => note && h("p.hint", note)));
  };
  paint(codes[0][0]);
  return card("This run as code", h("p.muted", `The same request again, ${plural(run.total, "picture")}. Your key is not in it: put it where the code says.`), tabs("Language", codes, codes[0][0], paint), shown);
}
