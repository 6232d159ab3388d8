// The records of a run as a table, each beside its picture: look, correct, mark as checked, go on.

import * as api from "./api.js";
import { open } from "./batch.js";
import { debounced, fill, h } from "./dom.js";
import { number, plural, time } from "./format.js";
import { isObject, join, recordForm, same, shown, valueAt } from "./record.js";
import { stepper } from "./stepper.js";
import { ask, badge, button, complain, empty, notice, say, search, select, tabs } from "./ui.js";
import { makeViewer } from "./viewer.js";
import { virtual } from "./virtual.js";

export const title = "Review";

const ROW = 40; // pixels
const MOST_COLUMNS = 40;
const recordOf = (item) => item.corrections?.record ?? item.result;
const needsReview = (item) => Boolean(item.needsReview) || Object.values(item.evidence ?? {}).some((one) => one.match === "none" || one.match === "unsupported");
const checked = (item) => Boolean(item.corrections?.checked);
const FILTERS = {
  all: ["All", () => true],
  unchecked: ["Unchecked", (item) => item.status === "succeeded" && !checked(item)],
  corrected: ["Corrected", (item) => item.corrections?.record !== undefined],
  unsupported: ["Unsupported", needsReview],
  failed: ["Failed", (item) => item.status === "failed"],
};
const KEYS = [["↓ or J", "next record"], ["↑ or K", "record before"], ["← →", "other value"], ["Enter", "correct the value; again: store it"], ["Escape", "leave the value as it was"], ["C", "mark as checked, and next"], ["F", "filter"], ["/", "search"], ["+ − 0", "zoom the picture"], ["?", "this list"]];

export async function show(main, { rest, signal }) {
  const run = await open(main, rest[0], signal);
  if (!run) return;
  if (!run.ended) {
    return void fill(main, stepper("review", { run: run.id }), h("h1", {}, "Review"), empty("The run still works", "Records can be reviewed when it has ended.", h("a", { class: "button primary", href: `#/run/${run.href}` }, "See the run")));
  }
  const loading = h("p", { class: "loading", role: "status" }, "Reading the records…");
  fill(main, h("h1", {}, "Review"), loading);
  await run.read(signal, (first, count) => (loading.textContent = `Reading the records… ${number(first + count)} of ${number(run.total)}`));
  const requests = await Promise.all(run.jobs.map((job) => api.call(`api/v1/jobs/${job.id}/request`, { signal }).catch(() => ({}))));
  if (run.succeeded && !run.items.some((item) => item.result !== null)) return void fill(main, stepper("review", { run: run.id }), h("h1", {}, "Review"), empty("One answer for all pictures", "This run made no record for each picture, so there is nothing to put beside one.", h("a", { class: "button primary", href: `#/export/${run.href}` }, "Get the answer")));
  new Screen(main, run, requests, signal).start(Number(rest[1]) - 1);
}

/** The columns: each member of the records, and those of objects inside them. */
function columnsOf(items) {
  const found = new Map();
  const learn = (record, pointer, name, depth) => {
    if (found.size >= MOST_COLUMNS) return;
    if (isObject(record) && depth < 2) for (const [key, value] of Object.entries(record)) learn(value, join(pointer, key), name ? `${name}.${key}` : key, depth + 1);
    else if (record !== null || depth) found.set(pointer, name || "result");
  };
  for (const item of items) if (item.status === "succeeded") learn(recordOf(item), "", "", 0);
  // A member that is an object in some records and nothing in others has its own members as columns.
  return [...found].filter(([pointer]) => ![...found.keys()].some((other) => other !== pointer && other.startsWith(`${pointer}/`)));
}

class Screen {
  constructor(main, run, requests, signal) {
    Object.assign(this, { main, run, requests, signal, filter: "all", sought: "", rows: [], n: -1, column: 0, shownPicture: -1 });
    this.columns = columnsOf(run.items);
    this.texts = []; // of each record, for the search
    this.viewer = makeViewer(signal);
    this.counter = h("p", { class: "muted", role: "status" });
    this.side = h("div", { class: "side-record" });
    this.seek = search("Search in the values", (text) => this.choose(this.filter, text));
    this.filters = select(Object.entries(FILTERS).map(([id, [label]]) => [id, label]), "all", (id) => this.choose(id, this.sought), { "aria-label": "Show", id: "review-filter" });
    this.load = debounced(() => this.picture().catch(complain), 60);
  }

  start(n) {
    const { run } = this;
    this.list = virtual({ height: ROW, head: ROW, label: "Records", role: "rowgroup", draw: (at) => this.row(at) });
    const widths = [`${40 + 9 * String(run.total).length}px`, "64px", "minmax(130px, 1.2fr)", ...this.columns.map(() => "minmax(120px, 1fr)")];
    this.grid = h("div", { class: "sheet", role: "grid", "aria-label": "Records", "aria-colcount": widths.length, style: { "--columns": widths.join(" "), "--wide": `${150 + 130 + 124 * this.columns.length}px` } }, this.list.element);
    this.list.element.prepend(h("div", { role: "rowgroup", class: "sheet-head" }, h("div", { class: "sheet-row", role: "row", "aria-rowindex": 1 }, ["#", "State", "Picture", ...this.columns.map(([, name]) => name)].map((name) => h("span", { role: "columnheader", title: name }, name)))));
    this.grid.addEventListener("click", (event) => {
      const cell = event.target.closest("[role=gridcell]");
      if (cell) this.select(Number(cell.parentElement.dataset.n), Number(cell.dataset.column), true);
      if (cell && this.narrow.matches) this.view("picture");
    });
    this.narrow = matchMedia("(max-width: 860px)");
    this.views = tabs("View", [["table", "Table"], ["picture", "Picture and record"]], "table", (id) => this.view(id, false));
    this.nothing = h("div", { class: "sheet-none", hidden: true }, "No record fits. Choose another filter or search.");
    this.body = h("div", { class: "review", data: { view: "table" } }, h("section", { class: "review-table", "aria-label": "Table" }, this.grid, this.nothing), h("section", { class: "review-side", "aria-label": "Picture and record" }, this.viewer.element, this.side));
    fill(this.main, stepper("review", { run: run.id }), h("div", { class: "head" }, h("div", {}, h("h1", {}, run.name || "Review"), this.counter),
      h("div", { class: "row review-tools" }, this.filters, this.seek, button("Keys ?", () => this.help(), { kind: "quiet" }), h("a", { class: "button primary", href: `#/export/${run.href}` }, "Export"))), h("div", { class: "review-views" }, this.views), this.body);
    document.addEventListener("keydown", (event) => this.key(event), { signal: this.signal });
    this.side.addEventListener("done", () => this.narrow.matches || this.focus());
    this.choose("all", "", n >= 0 && n < run.total ? n : undefined);
    this.focus();
    if (n >= 0 && this.narrow.matches) this.view("picture");
  }

  view(name, mark = true) {
    this.body.dataset.view = name;
    if (mark) for (const tab of this.views.children) {
      tab.setAttribute("aria-selected", String(tab.dataset.id === name));
      tab.tabIndex = tab.dataset.id === name ? 0 : -1;
    }
  }

  /** Shows the records that fit, and stays on the chosen one if it is among them. */
  choose(filter, sought, n = this.n) {
    Object.assign(this, { filter, sought });
    const words = sought.trim().toLowerCase();
    const fits = FILTERS[filter][1];
    this.rows = [];
    this.run.items.forEach((item, at) => fits(item) && (!words || this.text(at).includes(words)) && this.rows.push(at));
    this.list.redraw();
    this.list.count(this.rows.length);
    this.grid.setAttribute("aria-rowcount", this.rows.length + 1);
    this.nothing.hidden = this.rows.length > 0;
    this.count();
    this.select(this.rows.includes(n) ? n : this.rows[0] ?? -1, this.column);
  }

  text(n) {
    const item = this.run.items[n];
    return (this.texts[n] ??= `${this.run.nameOf(n)} ${item.code ?? ""} ${item.message ?? ""} ${JSON.stringify(recordOf(item)) ?? ""}`.toLowerCase());
  }

  count() {
    const done = this.run.items.filter(checked).length;
    const of = this.run.items.filter((item) => item.status === "succeeded").length;
    const line = `${number(done)} of ${number(of)} checked${this.filter === "all" && !this.sought ? "" : `. ${plural(this.rows.length, "record")} shown`}`;
    if (this.counter.textContent !== line) this.counter.textContent = line;
  }

  row(at) {
    const n = this.rows[at];
    const item = this.run.items[n];
    const record = recordOf(item);
    const [sign, kind, word] = item.status === "failed" ? ["✕", "failed", `failed, ${item.code}`] : checked(item) ? ["✓", "succeeded", "checked"] : needsReview(item) ? ["!", "running", "to review"] : ["○", "queued", "unchecked"];
    const cell = (column, content, more = {}) => h("span", { role: "gridcell", tabindex: n === this.n && column === this.column ? "0" : "-1", data: { column }, ...more }, content);
    const values = this.columns.map(([pointer], place) => {
      const text = item.status === "failed" ? (place ? "" : item.message) : shown(valueAt(record, pointer));
      const corrected = item.corrections?.record !== undefined && !same(valueAt(record, pointer), valueAt(item.result, pointer));
      return cell(place + 1, [corrected ? h("span", { class: "corrected", title: "Corrected" }, "✎ ", h("span", { class: "unseen" }, "corrected: ")) : null, text || (item.status === "failed" ? null : h("span", { class: "muted" }, "–"))], { title: text });
    });
    return h("div", { class: `sheet-row ${item.status}`, role: "row", "aria-selected": String(n === this.n), data: { n } }, h("span", { role: "rowheader" }, number(n + 1)), h("span", { role: "gridcell" }, h("span", { class: `sign ${kind}`, role: "img", "aria-label": word, title: word }, sign)), cell(0, this.run.nameOf(n)), values);
  }

  select(n, column = this.column, focus = false) {
    const changed = n !== this.n;
    const before = this.n;
    Object.assign(this, { n, column });
    if (n < 0) {
      this.shownPicture = -1;
      this.viewer.show(null, { instead: "" });
      return void fill(this.side);
    }
    this.list.redraw(new Set([this.rows.indexOf(before), this.rows.indexOf(n)]));
    this.list.show(this.rows.indexOf(n));
    if (focus) this.focus();
    if (changed) this.form();
    if (changed || this.shownPicture !== n) this.load();
    else this.viewer.point(this.boxes());
  }

  /** The focus goes to the chosen cell. */
  focus() {
    if (this.n < 0) return;
    const row = this.list.show(this.rows.indexOf(this.n));
    row?.querySelector(`[data-column="${this.column}"]`)?.focus({ preventScroll: true });
    row?.querySelector(`[data-column="${this.column}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  boxes(pointer = this.columns[this.column - 1]?.[0]) {
    return (pointer !== undefined && this.run.items[this.n]?.evidence?.[pointer]?.boxes) || [];
  }

  async picture() {
    const n = this.n;
    if (n < 0 || this.signal.aborted) return;
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    const item = this.run.items[n];
    this.shownPicture = n;
    const web = /^https?:\/\//.test(item.source ?? this.run.original(n)?.url ?? "") ? item.source ?? this.run.original(n).url : "";
    try {
      if (!this.run.original(n)?.file) this.viewer.show(null, { instead: "Loading the picture…" });
      const blob = await this.run.picture(n, 1600, signal);
      if (!signal.aborted) this.viewer.show(blob, { boxes: this.boxes(), focus: this.boxes().length > 0, alt: `Picture ${n + 1}, ${this.run.nameOf(n)}` });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.viewer.show(null, { instead: error.code !== "inputs_gone" ? error.message : web ? [h("p", {}, "The service does not keep pictures that it fetched by address."), h("a", { class: "button", href: web, target: "_blank", rel: "noreferrer noopener" }, "Open the picture's address")]
        : [h("p", {}, h("strong", {}, "The picture is no longer kept. ")), h("p", {}, "To see pictures here, keep this tab open, or choose under Fields how long pictures are kept after the run (keepInputsSeconds).")] });
    }
  }

  form() {
    const { n, run } = this;
    const item = run.items[n];
    const { at } = run.place(n);
    const corrections = item.corrections;
    const state = item.status === "failed" ? badge("✕ failed", "bad") : checked(item) ? badge("✓ checked", "good") : badge("unchecked");
    const who = checked(item) ? h("p", { class: "hint" }, `Checked by ${corrections.checkedBy}, ${time(corrections.checkedAt)}.`) : null;
    const step = (by, label, name) => button(label, () => this.go(by), { kind: "quiet", "aria-label": name, title: name });
    const head = h("div", { class: "side-head" }, h("h2", {}, `${number(n + 1)}. ${run.nameOf(n)}`), state, h("span", { class: "grow" }), step(-1, "↑", "Record before (K)"), step(1, "↓", "Next record (J)"));
    this.said = h("div", { role: "alert" });
    const value = item.status === "failed" ? notice("bad", h("p", {}, h("span", { class: "mono" }, item.code), " ", item.message), h("a", { href: `#/run/${run.href}` }, "What to do about it"))
      : recordForm({ item, schema: this.requests[at].schema ?? null, change: (pointer, to) => this.change(n, { changes: { [pointer]: to } }), chosen: (pointer) => this.viewer.point(this.boxes(pointer)) });
    const acts = item.status === "failed" ? null : h("div", { class: "row side-acts" }, checked(item) ? button("Uncheck", () => this.change(n, { checked: false })) : button("Checked, next", () => this.check(), { kind: "primary", title: "C" }),
      corrections?.record !== undefined ? button("Undo all corrections", () => this.change(n, { record: item.result }), { kind: "quiet" }) : null);
    fill(this.side, head, this.said, item.note ? h("p", { class: "hint" }, `Note: ${item.note}`) : null, value, acts, who);
  }

  /** Sends a correction. Raises what is wrong with a value, so that it is shown at its field. */
  async change(n, body) {
    const { job, index } = this.run.place(n);
    const before = this.run.items[n];
    try {
      const item = await api.call(`api/v1/jobs/${job.id}/items/${index}`, { method: "PATCH", json: { ...body, revision: before.corrections?.revision ?? 0 } });
      this.put(n, { ...before, ...item });
    } catch (error) {
      if (error.code !== "correction_conflict") throw error;
      if (this.n !== n) return complain(error);
      fill(this.said, notice("bad", h("p", {}, "Somebody else has changed this record meanwhile. Your change is not stored."), button("Load it anew", async () => {
        await this.run.readAgain(n, this.signal);
        this.put(n, this.run.items[n]);
        say("This is the record as it is now.");
      })));
    }
  }

  put(n, item) {
    this.run.items[n] = item;
    this.texts[n] = undefined;
    const at = this.rows.indexOf(n);
    if (at >= 0) this.list.redraw(new Set([at]));
    this.count();
    if (this.n !== n) return;
    // The form is drawn anew, and the focus stays where the person was.
    const inside = this.side.contains(document.activeElement) ? document.activeElement : null;
    const pointer = inside?.dataset.pointer;
    const label = inside?.getAttribute("aria-label") ?? inside?.textContent;
    const top = this.side.scrollTop;
    const inTable = this.grid.contains(document.activeElement) || document.activeElement === document.body;
    this.form();
    this.side.scrollTop = top;
    if (pointer !== undefined) this.field(pointer)?.focus();
    else if (inside) ([...this.side.querySelectorAll("button")].find((one) => (one.getAttribute("aria-label") ?? one.textContent) === label) ?? this.side.querySelector(".side-acts button"))?.focus();
    else if (inTable && !this.narrow.matches) this.focus();
  }

  field(pointer) {
    const all = [...this.side.querySelectorAll("[data-pointer]")];
    return all.find((one) => one.dataset.pointer === pointer) ?? all.find((one) => one.dataset.pointer.startsWith(`${pointer}/`));
  }

  async check() {
    const { n } = this;
    if (n < 0 || this.run.items[n].status === "failed") return this.go(1);
    const following = this.rows[this.rows.indexOf(n) + 1];
    await this.change(n, { checked: true });
    if (!checked(this.run.items[n])) return;
    if (this.filter === "unchecked") this.choose(this.filter, this.sought, following ?? this.n);
    else if (following === undefined) say("That was the last one.");
    else this.select(following, this.column);
    if (!this.narrow.matches) this.focus();
  }

  go(by) {
    const at = this.rows.indexOf(this.n) + by;
    if (at < 0 || at >= this.rows.length) return;
    const inSide = this.side.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : "";
    this.select(this.rows[at], this.column, !inSide);
    if (inSide) this.side.querySelector(`[aria-label="${inSide}"]`)?.focus();
  }

  key(event) {
    const { target } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || target.closest("dialog")) return;
    if (target.matches("input, textarea, select")) {
      if (event.key === "Escape" && !this.side.contains(target)) this.focus();
      return;
    }
    const inGrid = this.grid.contains(target) || target === document.body || target === this.main;
    const sideways = (by) => this.select(this.n, Math.min(this.columns.length, Math.max(0, this.column + by)), true);
    const acts = {
      j: () => this.go(1), k: () => this.go(-1), c: () => this.check(), f: () => this.filters.focus(), "/": () => this.seek.focus(), "?": () => this.help(),
      ...(inGrid ? { arrowdown: () => this.go(1), arrowup: () => this.go(-1), arrowright: () => sideways(1), arrowleft: () => sideways(-1), enter: () => this.edit(), home: () => this.select(this.rows[0] ?? -1, this.column, true), end: () => this.select(this.rows.at(-1) ?? -1, this.column, true), pagedown: () => this.leap(10), pageup: () => this.leap(-10) } : {}),
    };
    const act = acts[event.key.toLowerCase()];
    if (act) {
      event.preventDefault();
      Promise.resolve(act()).catch(complain);
    } else if (this.viewer.key(event)) event.preventDefault();
  }

  leap(by) {
    const at = Math.min(this.rows.length - 1, Math.max(0, this.rows.indexOf(this.n) + by));
    if (at >= 0) this.select(this.rows[at], this.column, true);
  }

  edit() {
    if (this.narrow.matches) this.view("picture");
    const control = this.field(this.columns[Math.max(0, this.column - 1)]?.[0] ?? "");
    control?.focus();
    control?.select?.();
  }

  help() {
    return ask("Keys", h("dl", { class: "facts" }, KEYS.map(([key, what]) => [h("dt", {}, key), h("dd", {}, what)]))).then(() => this.focus());
  }
}
