// The parts that several screens use. Each returns an element.

import { debounced, fill, h, newId } from "./dom.js";
import { ago, time } from "./format.js";

/** A button. `kind`: "primary", "danger", "quiet" or "" for the usual one. While `act` runs the button is busy. */
export function button(label, act, { kind = "", why = "", ...props } = {}) {
  const element = h("button", { type: "button", class: `button ${kind}`, ...props }, label);
  if (why) disable(element, why);
  element.addEventListener("click", async (event) => {
    if (element.ariaDisabled === "true") return;
    element.ariaBusy = element.ariaDisabled = "true";
    try {
      await act(event);
    } catch (error) {
      complain(error);
    } finally {
      element.ariaBusy = null;
      if (!element.dataset.why) element.ariaDisabled = null;
    }
  });
  return element;
}

/** Makes a control unusable and says why; with an empty reason it can be used again. It keeps the focus, so the reason can be read. */
export function disable(element, why) {
  element.dataset.why = element.title = why;
  element.ariaDisabled = why ? "true" : null;
  return element;
}

/** The head of a screen: its title, a line about it, and what can be done there. */
export const head = (title, about, ...actions) => h("div.head", h("div", h("h1", { tabindex: "-1" }, title), about && h("p.muted", about)), actions);

/** A time as "5 minutes ago", with the exact one behind it. */
export const when = (text) => h("time", { datetime: text, title: time(text) }, ago(text));

/** A list of facts: each is an array of children. */
export const list = (entries) => h("ul", entries.map((entry) => h("li", entry)));

export const link = (label, href, props) => h("a", { href, ...props }, label);

/** A labelled control. `hint` stands under it and is read out with it. */
export function field(label, control, { hint = "", wide = false } = {}) {
  control.id ||= newId("f");
  const note = hint && h("p.hint", { id: `${control.id}-hint` }, hint);
  if (note) control.setAttribute("aria-describedby", note.id);
  return h(wide ? "div.field.wide" : "div.field", h("label", { for: control.id }, label), control, note);
}

/** A list to choose from. `choices`: [value, label, reason why it can't be chosen]. */
export function select(choices, value, change = () => {}, props = {}) {
  const options = choices.map(([key, label = key, why]) => h("option", { value: key, disabled: !!why, selected: key === value }, why ? `${label} (${why})` : label));
  return h("select", { on: { change: (event) => change(event.target.value) }, ...props }, options);
}

/** A small word for a state. `kind`: "good", "bad", "warn", "busy" or "". */
export const badge = (label, kind = "") => h("span", { class: `badge ${kind}` }, label);

/** The kind of badge of a job's or an item's status. */
export const statusKind = (status) => ({ succeeded: "good", delivered: "good", failed: "bad", dead: "bad", partial: "warn", running: "busy", pending: "busy" })[status] ?? "";
export const statusBadge = (status) => badge({ dead: "given up", pending: "waiting" }[status] ?? status, statusKind(status));

/** A notice in the flow of the page. `kind`: "bad", "warn", "good" or "". */
export const notice = (kind, ...children) => h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null }, children);

/** What stands where there is nothing yet, with the way on. */
export const empty = (title, text, ...actions) => h("div.empty", h("h2", title), h("p", text), h("div.row", actions));

/** A framed part of a page. A text as its first child is its heading. */
export const card = (first, ...children) => h("section.card", typeof first === "string" ? h("h2", first) : first, children);

/** Progress of parts of a whole: `parts`: [count, kind, label]. It is read out as one text. */
export function bar(parts, total) {
  const said = parts.map(([count, , label]) => `${count} ${label}`).join(", ");
  return h("div.progress", { role: "img", "aria-label": `${said} of ${total}` }, parts.map(([count, kind]) => h("span", { class: kind, style: { width: `${(100 * count) / Math.max(1, total)}%` } })));
}

/** A table. `columns`: texts or {label, numeric}; `rows`: arrays of cells. It scrolls sideways by itself on a narrow screen. */
export function table(caption, columns, rows) {
  const line = (kind, cells, props) => h("tr", cells.map((cell, at) => h(columns[at].numeric ? `${kind}.numeric` : kind, { ...props }, cell)));
  return h("div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    h("table", h("caption.unseen", caption), h("thead", line("th", columns.map((column) => column.label ?? column), { scope: "col" })), h("tbody", rows.map((row) => line("td", row)))));
}

/**
 * A table that is read page by page. `read(cursor)` resolves with {entries, next (a cursor or null)}; `cells(entry)`: the cells of its
 * row; `none()`: what stands there without entries. Returns `{element, load()}`, which begins anew.
 */
export function pages(caption, columns, { read, cells, none }) {
  const element = h("div.stack");
  let rows = [];
  async function load(cursor = "") {
    const { entries, next } = await read(cursor);
    rows = [...(cursor ? rows : []), ...entries.map(cells)];
    fill(element, rows.length ? table(caption, columns, rows) : none(), next && button("Load more", async () => {
      await load(next);
      element.firstChild.focus();
    }));
  }
  return { element, load: () => load() };
}

/** Opens a dialog and resolves with the value of the button that closed it ("" by Escape). `actions`: [value, label, kind]. */
export function ask(title, content, actions = [["", "Close", ""]]) {
  const id = newId("d");
  return new Promise((resolve) => {
    const close = (value) => (dialog.close(), dialog.remove(), resolve(value));
    const buttons = actions.map(([value, label, kind]) => button(label, () => close(value), { kind }));
    const dialog = h("dialog", { "aria-labelledby": id, on: { cancel: (event) => (event.preventDefault(), close("")) } }, h("h2", { id }, title), content, h("div.row.end", buttons));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Says something for a moment, also to a screen reader. */
export function say(text, kind = "") {
  const toast = h("div", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(toast);
  setTimeout(() => toast.remove(), kind === "bad" ? 12000 : 5000);
}

/** Tells the person what went wrong. What was stopped on purpose is not told. */
export function complain(error) {
  if (error.name === "AbortError") return;
  if (error.status === undefined) console.error(error);
  say(error.message, "bad");
}

/** Gives the person a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/** Copies a text, and says so. Browsers have no clipboard on a page that came by http from another machine: there the old command copies. */
export async function copy(text, what = "It") {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    const field = h("textarea.unseen", { value: text });
    const before = document.activeElement;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    before?.focus();
    if (!copied) throw new Error("The browser does not let this page copy. Select the text and copy it by hand.");
  }
  say(`${what} is in the clipboard.`);
}

/** A text that can be copied by a button, such as a command. */
export function code(text, what = "The text") {
  return h("div.code", h("pre", { tabindex: "0" }, text), button("Copy", () => copy(text, what), { kind: "quiet" }));
}

/** A search box that calls `change` when typing pauses. */
export function search(label, change, value = "") {
  return h("input", { type: "search", "aria-label": label, placeholder: label, value, on: { input: debounced((event) => change(event.target.value)) } });
}

/** Tabs. `tabs`: [id, label]. `change` gets the id. Arrow keys move, as the pattern of WAI-ARIA says. */
export function tabs(label, entries, chosen, change) {
  const all = entries.map(([id, name]) => h("button", { type: "button", role: "tab", data: { id }, on: { click: () => (mark(id), change(id)) } }, name));
  const mark = (id) => all.forEach((tab) => {
    tab.ariaSelected = tab.dataset.id === id;
    tab.tabIndex = tab.dataset.id === id ? 0 : -1;
  });
  const keydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = all.at((all.indexOf(document.activeElement) + step) % all.length);
    next.focus();
    next.click();
  };
  mark(chosen);
  return h("div.tabs", { role: "tablist", "aria-label": label, on: { keydown } }, all);
}
