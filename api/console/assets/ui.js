// The parts that several screens use. Each returns an element.

import { debounced, fill, h, newId } from "./dom.js";

/** A button. `kind`: "primary", "danger", "quiet" or "" for the usual one. While `act` runs the button is busy. */
export function button(label, act, { kind = "", why = "", ...props } = {}) {
  const element = h("button", { type: "button", class: `button ${kind}`, ...props }, label);
  if (why) disable(element, why);
  element.addEventListener("click", async (event) => {
    if (element.getAttribute("aria-disabled") === "true") return;
    element.setAttribute("aria-busy", "true");
    element.setAttribute("aria-disabled", "true");
    try {
      await act(event);
    } catch (error) {
      complain(error);
    } finally {
      element.removeAttribute("aria-busy");
      if (!element.dataset.why) element.removeAttribute("aria-disabled");
    }
  });
  return element;
}

/** Makes a control unusable and says why; with an empty reason it can be used again. It keeps the focus, so the reason can be read. */
export function disable(element, why) {
  element.dataset.why = why;
  element.title = why;
  if (why) element.setAttribute("aria-disabled", "true");
  else element.removeAttribute("aria-disabled");
  return element;
}

export const link = (label, href, props = {}) => h("a", { href, ...props }, label);

/** A labelled control. `hint` stands under it and is read out with it. */
export function field(label, control, { hint = "", wide = false } = {}) {
  control.id ||= newId("f");
  const note = hint ? h("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: wide ? "field wide" : "field" }, h("label", { for: control.id }, label), control, note);
}

/** A list to choose from. `choices`: [value, label, reason why it can't be chosen]. */
export function select(choices, value, change = () => {}, props = {}) {
  const options = choices.map(([key, label = key, why = ""]) => h("option", { value: key, disabled: Boolean(why), selected: key === value }, why ? `${label} (${why})` : label));
  const element = h("select", props, options);
  element.addEventListener("change", () => change(element.value));
  return element;
}

/** A small word for a state. `kind`: "good", "bad", "warn", "busy" or "". */
export const badge = (label, kind = "") => h("span", { class: `badge ${kind}` }, label);

/** The kind of badge of a job's or an item's status. */
export const statusKind = (status) => ({ succeeded: "good", failed: "bad", partial: "warn", cancelled: "", running: "busy", queued: "", delivered: "good", dead: "bad", pending: "busy" })[status] ?? "";
export const statusBadge = (status) => badge(status, statusKind(status));

/** A notice in the flow of the page. `kind`: "bad", "warn", "good" or "". */
export const notice = (kind, ...children) => h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null }, children);

/** What stands where there is nothing yet, with the way on. */
export const empty = (title, text, ...actions) => h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text), h("div", { class: "row" }, actions));

export const card = (...children) => h("section", { class: "card" }, children);

/** Progress of parts of a whole: `parts`: [count, kind, label]. It is read out as one text. */
export function bar(parts, total) {
  const said = parts.map(([count, , label]) => `${count} ${label}`).join(", ");
  return h("div", { class: "progress", role: "img", "aria-label": `${said} of ${total}` }, parts.map(([count, kind]) => h("span", { class: kind, style: { width: `${(100 * count) / Math.max(1, total)}%` } })));
}

/** A table. `columns`: texts or {label, numeric}; `rows`: arrays of cells. It scrolls sideways by itself on a narrow screen. */
export function table(caption, columns, rows) {
  const heads = columns.map((column) => h("th", { scope: "col", class: column.numeric ? "numeric" : "" }, column.label ?? column));
  const body = rows.map((cells) => h("tr", {}, cells.map((cell, at) => h("td", { class: columns[at].numeric ? "numeric" : "" }, cell))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, body)));
}

/** Opens a dialog and resolves with the value of the button that closed it ("" by Escape). `actions`: [value, label, kind]. */
export function ask(title, content, actions = [["", "Close", ""]]) {
  const id = newId("d");
  const dialog = h("dialog", { "aria-labelledby": id });
  return new Promise((resolve) => {
    const close = (value) => (dialog.close(), dialog.remove(), resolve(value));
    dialog.addEventListener("cancel", (event) => (event.preventDefault(), close("")));
    const buttons = actions.map(([value, label, kind]) => h("button", { type: "button", class: `button ${kind ?? ""}`, on: { click: () => close(value) } }, label));
    fill(dialog, h("h2", { id }, title), content, h("div", { class: "row end" }, buttons));
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

/** Copies a text, and says so. */
export async function copy(text, what = "It") {
  await navigator.clipboard.writeText(text);
  say(`${what} is in the clipboard.`);
}

/** A text that can be copied by a button, such as a command. */
export function code(text, what = "The text") {
  return h("div", { class: "code" }, h("pre", { tabindex: "0" }, text), button("Copy", () => copy(text, what), { kind: "quiet" }));
}

/** A search box that calls `change` when typing pauses. */
export function search(label, change, value = "") {
  const input = h("input", { type: "search", "aria-label": label, placeholder: label, value });
  input.addEventListener("input", debounced(() => change(input.value)));
  return input;
}

/** Tabs. `tabs`: [id, label]. `change` gets the id. Arrow keys move, as the pattern of WAI-ARIA says. */
export function tabs(label, entries, chosen, change) {
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": label });
  const mark = (id) => [...list.children].forEach((tab) => {
    tab.setAttribute("aria-selected", String(tab.dataset.id === id));
    tab.tabIndex = tab.dataset.id === id ? 0 : -1;
  });
  for (const [id, name] of entries) list.append(h("button", { type: "button", role: "tab", data: { id }, on: { click: () => (mark(id), change(id)) } }, name));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...list.children];
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.focus();
    next.click();
  });
  mark(chosen);
  return list;
}
