// The records of a run as a table, each beside its picture: look, correct, mark as checked, go on.

import { open, unended } from "./batch.js";
import { debounced, fill, h } from "./dom.js";
import { number, plural, time } from "./format.js";
import { call, isObject, write } from "./json.js";
import { go, sign } from "./parts.js";
import { isBox, join, recordForm, same, shown, valueAt } from "./record.js";
import { stepper } from "./stepper.js";
import { ask, badge, button, complain, empty, head, link, notice, say, search, select, tabs } from "./ui.js";
import { makeViewer } from "./viewer.js";
import { virtual } from "./virtual.js";

export const title = "Review";

const ROW = 40; // pixels
const MOST_COLUMNS = 40;
const LOW = 0.8; // the service's own limit of a low confidence
const recordOf = (item) => item.corrections?.record ?? item.result;
const isCorrected = (item) => item.corrections?.record !== undefined;
const isFailed = (item) => item.status === "failed";
const isChecked = (item) => Boolean(item.corrections?.checked);
const isUnseen = (item) => item.unsupported?.length > 0;
const isToReview = (item) => !isChecked(item) && Boolean(item.needsReview || isUnseen(item));
/** The pointer of the first value that a person should look at; undefined if there is none. */
const doubtOf = (item) => item.unsupported?.[0] ?? Object.entries(item.evidence ?? {}).find(([, one]) => one.match === "fuzzy" || (one.boxes.length && one.confidence < LOW))?.[0];
const FILTERS = [
  ["all", "All", () => true],
  ["unchecked", "Unchecked", (item) => item.status === "succeeded" && !isChecked(item)],
  ["corrected", "Corrected", isCorrected],
  ["review", "Need a review", isToReview],
  ["failed", "Failed", isFailed],
];
/** Sign, kind of badge and word of a record's state. */
const stateOf = (item) => (isFailed(item) ? ["✕", "bad", "failed"] : isChecked(item) ? ["✓", "good", "checked"] : isUnseen(item) ? ["!", "warn", "not seen in the picture"] : item.needsReview ? ["!", "warn", "needs a review"] : ["○", "", "unchecked"]);
const KEYS = [["↓ or J", "next record"], ["↑ or K", "record before"], ["← →", "other value"], ["Enter", "correct the value; again: store it"], ["Escape", "leave the value as it was"], ["C", "mark as checked, and next"], ["F", "filter"], ["/", "search"], ["+ − 0", "zoom the picture"], ["?", "this list"]];

export async function show(main, { rest, signal }) {
  const run = await open(main, rest[0], signal);
  if (!run) return;
  const above = [stepper("review", { run: run.id }), head("Review")];
  if (!run.ended) return void fill(main, above, unended(run));
  const loading = h("p.loading", { role: "status" }, "Reading the records…");
  fill(main, above, loading);
  await run.read(signal, (first, count) => (loading.textContent = `Reading the records… ${number(first + count)} of ${number(run.total)}`));
  const requests = await run.requests(signal);
  if (run.succeeded && !run.items.some((item) => item.result !== null)) return void fill(main, above, empty("One answer for all pictures", "This run made no record for each picture, so there is nothing to put beside one.", go("export", run, "Get the answer")));
  review(main, run, requests, signal, rest[1] - 1);
}

/** The columns, as [pointer, name]: each member of the records, and those of objects inside them. */
function columnsOf(items) {
  const found = new Map();
  const learn = (record, pointer, name, depth) => {
    if (found.size >= MOST_COLUMNS) return;
    if (isObject(record) && depth < 2) for (const [key, value] of Object.entries(record)) learn(value, join(pointer, key), name ? `${name}.${key}` : key, depth + 1);
    else if (record !== null || depth) found.set(pointer, name || "result");
  };
  for (const item of items) if (item.status === "succeeded") learn(recordOf(item), "", "", 0);
  // A member that is an object in some records and nothing in others has its own members as columns.
  return [...found].filter(([pointer]) => ![...found.keys()].some((other) => other.startsWith(`${pointer}/`)));
}

/** The boxes of a value in the picture: of its evidence, or those that the OCR engine gave its lines. */
function boxesOf(item, pointer) {
  const inside = (value) => (value instanceof Object ? [value.box].filter(isBox).concat(Object.values(value).flatMap(inside)) : []);
  const evidence = item.evidence?.[pointer];
  if (evidence || pointer === undefined) return evidence?.boxes ?? [];
  if (item.evidence) return Object.entries(item.evidence).flatMap(([at, one]) => (at.startsWith(`${pointer}/`) ? one.boxes : []));
  const isText = !(valueAt(item.result, pointer) instanceof Object);
  for (let at = pointer; ; at = at.slice(0, at.lastIndexOf("/"))) {
    const found = inside(valueAt(item.result, at));
    if (found.length || !at || !isText) return found;
  }
}

function review(main, run, requests, signal, first) {
  const { items } = run;
  const columns = columnsOf(items);
  const texts = []; // of each record, for the search
  const viewer = makeViewer(signal);
  const narrow = matchMedia("(max-width: 860px)");
  let rows = []; // the numbers of the pictures that are shown
  let n = -1; // the chosen one
  let column = 0; // 0: the picture's name; others: the values
  let pictured = -1; // whose picture is shown or being loaded
  let [filter, sought] = [first < 0 || Number.isNaN(first) ? (items.some(isToReview) ? "review" : "all") : "all", ""];
  let stop = new AbortController();
  let said; // where a conflict is told

  const counter = h("span", { role: "status" });
  const side = h("div.side-record");
  const seek = search("Search in the values", (text) => choose(filter, text));
  const filters = select(FILTERS.map(([id, label]) => [id, label]), filter, (id) => choose(id, sought), { "aria-label": "Show", id: "review-filter" });
  const list = virtual({ height: ROW, head: ROW, label: "Records", role: "rowgroup", draw: row });
  const heads = ["#", "State", "Picture", ...columns.map(([, name]) => name)];
  const widths = `${40 + 9 * String(run.total).length}px 64px minmax(130px, 1.2fr)${" minmax(120px, 1fr)".repeat(columns.length)}`;
  const grid = h("div.sheet", { role: "grid", "aria-label": "Records", "aria-colcount": heads.length, style: { "--columns": widths, "--wide": `${280 + 124 * columns.length}px` } }, list.element);
  list.element.prepend(h("div", { role: "rowgroup", class: "sheet-head" }, h("div.sheet-row", { role: "row", "aria-rowindex": 1 }, heads.map((name) => h("span", { role: "columnheader", title: name }, name)))));
  const nothing = h("div.sheet-none", "No record fits. Choose another filter or search.");
  const views = tabs("View", [["table", "Table"], ["picture", "Picture and record"]], "table", (id) => (body.dataset.view = id));
  const body = h("div.review", { data: { view: "table" } }, h("section.review-table", { "aria-label": "Table" }, grid, nothing), h("section.review-side", { "aria-label": "Picture and record" }, viewer.element, side));
  const toPicture = () => narrow.matches && views.children[1].click();

  /** Shows the records that fit, and stays on the wanted one if it is among them. */
  function choose(...wanted) {
    let stay;
    [filter, sought, stay = n] = wanted;
    const words = sought.trim().toLowerCase();
    const [, , fits] = FILTERS.find(([id]) => id === filter);
    rows = [...items.keys()].filter((at) => fits(items[at]) && (!words || textOf(at).includes(words)));
    list.redraw();
    list.count(rows.length);
    list.show(0); // now the list has its new height, so that it can scroll to any row
    grid.setAttribute("aria-rowcount", rows.length + 1);
    nothing.hidden = rows.length > 0;
    count();
    const to = rows.includes(stay) ? stay : rows[0] ?? -1;
    choosePicture(to, start(to));
  }

  function textOf(at) {
    const item = items[at];
    return (texts[at] ??= `${run.nameOf(at)} ${item.code ?? ""} ${item.message ?? ""} ${write(recordOf(item))}`.toLowerCase());
  }

  function count() {
    const line = `${number(items.filter(isChecked).length)} of ${number(run.succeeded)} checked${filter === "all" && !sought ? "" : `. ${plural(rows.length, "record")} shown`}`;
    if (counter.textContent !== line) counter.textContent = line;
  }

  function row(at) {
    const picture = rows[at];
    const item = items[picture];
    const [mark, kind, word] = stateOf(item);
    const cell = (place, title, ...content) => h("span", { role: "gridcell", tabindex: picture === n && place === column ? "0" : "-1", data: { column: place }, title }, content);
    const values = columns.map(([pointer], place) => {
      if (isFailed(item)) return cell(place + 1, place ? "" : item.message, place ? "" : item.message);
      const value = valueAt(recordOf(item), pointer);
      const changed = isCorrected(item) && !same(value, valueAt(item.result, pointer));
      const text = shown(value);
      return cell(place + 1, text, changed && h("span.corrected", { title: "Corrected" }, "✎ ", h("span.unseen", "corrected: ")), text || h("span.muted", "–"));
    });
    return h("div", { class: `sheet-row ${item.status}`, role: "row", "aria-selected": String(picture === n), data: { n: picture } }, h("span", { role: "rowheader" }, number(picture + 1)),
      h("span", { role: "gridcell" }, sign(mark, kind, { role: "img", "aria-label": word, title: word })), cell(0, run.nameOf(picture), run.nameOf(picture)), values);
  }

  /** The column of the value that is to be looked at, while only such records are shown. */
  function start(at) {
    const doubt = filter === "review" && items[at] && doubtOf(items[at]);
    const found = doubt ? columns.findIndex(([pointer]) => doubt === pointer || doubt.startsWith(`${pointer}/`)) : -1;
    return found < 0 ? column : found + 1;
  }

  /** Chooses a picture and a column; with `focused` the focus goes to the cell. */
  function choosePicture(to, place = column, focused = false) {
    const before = n;
    n = to;
    column = place;
    if (n < 0) {
      pictured = n;
      viewer.show(null, {});
      return void fill(side);
    }
    list.redraw(new Set([rows.indexOf(before), rows.indexOf(n)]));
    list.show(rows.indexOf(n));
    if (focused) focus();
    if (n !== before) {
      form();
      pictured = -1;
      viewer.show(null, { instead: h("p.late", "Loading the picture…") }); // never the picture of another record
    }
    if (pictured === n) viewer.point(boxes());
    else load();
  }

  /** The focus goes to the chosen cell. */
  function focus() {
    const cell = n >= 0 && list.show(rows.indexOf(n))?.querySelector(`[data-column="${column}"]`);
    if (!cell) return;
    cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const backToTable = () => narrow.matches || focus();

  function boxes() {
    const pointer = columns[column - 1]?.[0];
    const doubt = doubtOf(items[n]);
    const inner = doubt?.startsWith(`${pointer}/`) ? boxesOf(items[n], doubt) : [];
    return inner.length ? inner : boxesOf(items[n], pointer);
  }

  const load = debounced(() => picture().catch(complain), 60);
  async function picture() {
    stop.abort();
    if (n < 0 || signal.aborted) return;
    stop = new AbortController();
    const mine = AbortSignal.any([signal, stop.signal]);
    const at = (pictured = n);
    const original = run.original(at);
    const web = [items[at].source, original?.url].find((text) => /^https?:/.test(text ?? ""));
    try {
      const blob = await run.picture(at, 1600, mine);
      if (!mine.aborted) viewer.show(blob, { boxes: boxes(), alt: `Picture ${at + 1}, ${run.nameOf(at)}` });
    } catch (error) {
      if (error.name === "AbortError") return;
      viewer.show(null, { instead: error.code !== "inputs_gone" ? error.message : web ? [h("p", "The service does not keep pictures that it fetched by address."), link("Open the picture's address", web, { class: "button", target: "_blank", rel: "noreferrer noopener" })]
        : [h("p", h("strong", "The picture is no longer kept.")), h("p", "To see pictures here, keep this tab open, or choose under Fields how long they are kept after the run.")] });
    }
  }

  function form() {
    const at = n;
    const item = items[at];
    const [mark, kind, word] = stateOf(item);
    const step = (by, label, name) => button(label, () => walk(by), { kind: "quiet", "aria-label": name, title: name });
    said = h("div", { role: "alert" });
    const content = isFailed(item) ? [notice("bad", h("p", h("code", item.code), " ", item.message), link("What to do about it", `#/run/${run.href}`)), h("div.row.side-acts", button("Next", check, { kind: "primary", title: "C" }))]
      : [recordForm({ item, schema: requests[run.place(at).at].schema, change: (pointer, to) => change(at, { changes: { [pointer]: to } }), chosen: (pointer) => viewer.point(boxesOf(item, pointer)) }),
        h("div.row.side-acts", isChecked(item) ? button("Uncheck", () => change(at, { checked: false })) : button("Checked, next", check, { kind: "primary", title: "C" }), isCorrected(item) && button("Undo all corrections", () => change(at, { record: item.result }), { kind: "quiet" }))];
    fill(side, h("div.side-head", h("h2", `${number(at + 1)}. ${run.nameOf(at)}`), badge(`${mark} ${word}`, kind), h("span.grow"), step(-1, "↑", "Record before (K)"), step(1, "↓", "Next record (J)")), said,
      item.note && h("p.hint", `Note: ${item.note}`), item.evidenceError && h("p.hint", item.evidenceError.message), content, isChecked(item) && h("p.hint", `Checked by ${item.corrections.checkedBy}, ${time(item.corrections.checkedAt)}.`));
  }

  /** Sends a correction. Raises what is wrong with a value, so that it is shown at its field. */
  async function change(at, json) {
    const { job, index } = run.place(at);
    const before = items[at];
    try {
      put(at, { ...before, ...await call(`api/v1/jobs/${job.id}/items/${index}`, { method: "PATCH", json: { ...json, revision: before.corrections?.revision ?? 0 } }) });
    } catch (error) {
      if (error.code !== "correction_conflict") throw error;
      if (n !== at) return complain(error);
      fill(said, notice("bad", h("p", "Somebody else has changed this record meanwhile. Your change is not stored."), button("Load it anew", async () => {
        await run.readAgain(at, signal);
        put(at, items[at]);
        say("This is the record as it is now.");
      })));
    }
  }

  /** Shows a record as it is now. The focus stays where the person was. */
  function put(at, item) {
    items[at] = item;
    texts[at] = undefined;
    const place = rows.indexOf(at);
    if (place >= 0) list.redraw(new Set([place]));
    count();
    if (n !== at) return;
    const active = document.activeElement;
    const inside = side.contains(active);
    const label = labelOf(active);
    const top = side.scrollTop;
    form();
    side.scrollTop = top;
    if (inside) (field(active.dataset.pointer) ?? [...side.querySelectorAll("button")].find((one) => labelOf(one) === label) ?? side.querySelector(".side-acts button"))?.focus();
    else if (active === document.body || grid.contains(active)) backToTable();
  }
  const labelOf = (element) => element.getAttribute("aria-label") ?? element.textContent;

  /** The control of a value, or of the first value inside it. */
  function field(pointer) {
    const all = [...side.querySelectorAll("[data-pointer]")];
    return all.find((one) => one.dataset.pointer === pointer) ?? all.find((one) => one.dataset.pointer.startsWith(`${pointer}/`));
  }

  async function check() {
    const at = n;
    if (at < 0 || isFailed(items[at])) return walk(1);
    const following = rows[rows.indexOf(at) + 1];
    await change(at, { checked: true });
    if (!isChecked(items[at])) return;
    if (filter === "unchecked" || filter === "review") choose(filter, sought, following);
    else if (following === undefined) say("That was the last one.");
    else choosePicture(following);
    backToTable();
  }

  /** Goes to another record that is shown. The focus stays on the button that did it. */
  function walk(by) {
    const to = rows[rows.indexOf(n) + by];
    if (to === undefined) return;
    const label = side.contains(document.activeElement) && labelOf(document.activeElement);
    choosePicture(to, start(to), !label);
    if (label) side.querySelector(`[aria-label="${label}"]`)?.focus();
  }
  const leap = (to) => rows.length && choosePicture(rows[Math.min(rows.length - 1, Math.max(0, to))], column, true);
  const sideways = (by) => choosePicture(n, Math.min(columns.length, Math.max(0, column + by)), true);

  function edit() {
    toPicture();
    const control = field(columns[Math.max(0, column - 1)]?.[0] ?? "");
    control?.focus();
    control?.select?.();
  }
  const help = () => ask("Keys", h("dl.facts", KEYS.map(([name, what]) => [h("dt", name), h("dd", what)]))).then(focus);

  const anywhere = { j: () => walk(1), k: () => walk(-1), c: check, f: () => filters.focus(), "/": () => seek.focus(), "?": help };
  const inTable = {
    ArrowDown: anywhere.j, ArrowUp: anywhere.k, ArrowRight: () => sideways(1), ArrowLeft: () => sideways(-1), Enter: edit,
    Home: () => leap(0), End: () => leap(Infinity), PageDown: () => leap(rows.indexOf(n) + 10), PageUp: () => leap(rows.indexOf(n) - 10),
  };
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || target.closest("dialog")) return;
    if (target.matches("input, textarea, select")) return void (key === "Escape" && !side.contains(target) && focus());
    const act = anywhere[key.toLowerCase()] ?? (grid.contains(target) || target === document.body || target === main ? inTable[key] : undefined);
    if (!act && !viewer.key(event)) return;
    event.preventDefault();
    Promise.resolve(act?.()).catch(complain);
  }, { signal });
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest("[role=gridcell]");
    if (!cell) return;
    choosePicture(Number(cell.parentElement.dataset.n), Number(cell.dataset.column ?? 0), true);
    toPicture();
  });
  side.addEventListener("done", backToTable);

  fill(main, stepper("review", { run: run.id }), head(run.name || "Review", counter, h("div.row.review-tools", filters, seek, button("Keys ?", help, { kind: "quiet" }), go("export", run, "Export"))), h("div.review-views", views), body);
  choose(filter, sought, first);
  focus();
  if (first >= 0) toPicture();
}
