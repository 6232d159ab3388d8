// Screen: the pictures.

import { fill, h, newId } from "./dom.js";
import { draft, usable } from "./draft.js";
import { bytes, number, plural } from "./format.js";
import { addAddresses, addFiles, dropped, parts, remove, shortName } from "./pictures.js";
import { stepper } from "./stepper.js";
import { thumb } from "./thumbs.js";
import { button, complain, disable, say } from "./ui.js";
import { virtual } from "./virtual.js";

export const title = "Pictures";
const TILE = 196; // pixels, height with the gap

export async function show(main, { signal, able }) {
  let shown = draft.pictures;
  let onlyBad = false;
  let current = 0;
  const count = h("p", { class: "muted", role: "status" });
  const grid = virtual({ draw: tile, height: TILE, across: (width) => Math.floor(width / 168), label: "Pictures", margin: 2 });
  grid.element.classList.add("grid");
  const next = h("a", { class: "button primary", href: "#/fields" }, "Next: fields");
  next.addEventListener("click", (event) => next.getAttribute("aria-disabled") === "true" && (event.preventDefault(), say(next.dataset.why)));

  const files = picker({ multiple: true });
  const folder = picker({ webkitdirectory: true });
  const drop = h("section", { class: "drop", "aria-label": "Add pictures" },
    h("div", {}, h("h2", {}, "Drop pictures or a folder here"), h("p", { class: "muted" }, "or paste pictures and addresses. JPEG, PNG, WebP, HEIC, TIFF and many more.")),
    h("div", { class: "row" }, files, folder, button("Choose files", () => files.click(), { kind: "primary" }), button("Choose a folder", () => folder.click()), button("Paste URLs", urls)));

  const text = h("textarea", { spellcheck: "false", placeholder: "https://example.com/receipt.jpg", id: newId("u") });
  const form = h("form", { class: "card stack", hidden: true }, h("div", { class: "field" }, h("label", { for: text.id }, "Addresses of pictures, one a line"), text), h("div", { class: "row" }, h("button", { class: "button primary" }, "Add"), button("Cancel", urls)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    say(`${plural(addAddresses(text.value), "address", "addresses")} added.`);
    text.value = "";
    form.hidden = true;
    update();
    next.focus();
  });

  const bad = h("input", { type: "checkbox", id: newId("b") });
  bad.addEventListener("change", () => ((onlyBad = bad.checked), update()));
  const badBox = h("span", { class: "check" }, bad, h("label", { for: bad.id }, "Only those that can't be used"));
  const clean = button("Remove what can't be used", () => take(draft.pictures.filter((one) => one.problem)));
  const clear = button("Remove all", () => take(draft.pictures), { kind: "quiet" });
  const tools = h("div", { class: "row tools" }, count, h("span", { class: "grow" }), badBox, clean, clear);

  function picker(kind) {
    const input = h("input", { type: "file", hidden: true, "aria-hidden": "true", tabindex: "-1", ...kind });
    input.addEventListener("change", () => {
      add([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }))).catch(complain);
      input.value = "";
    });
    return input;
  }

  function urls() {
    form.hidden = !form.hidden;
    if (!form.hidden) text.focus();
  }

  async function add(entries) {
    if (entries.length) await addFiles(entries, able, update);
  }

  function take(gone) {
    remove(gone);
    update();
    if (!draft.pictures.length) drop.querySelector(".primary").focus();
  }

  function tile(index) {
    const one = shown[index];
    const off = h("button", { type: "button", class: "off", tabindex: index === current ? "0" : "-1", "aria-label": `Remove ${one.name}`, title: "Remove", on: { click: () => drop1(index), focus: () => (current = index) } }, "×");
    const about = one.problem || one.hint || (one.url ? one.url.replace(/^\w+:\/\//, "") : bytes(one.size));
    return h("div", { role: "listitem", class: one.problem ? "tile bad" : "tile" }, h("div", { class: "tile-in" }, thumb(one), h("p", { class: "name", title: one.name }, shortName(one)), h("p", { class: one.problem ? "about bad" : one.hint ? "about warn" : "about", title: about }, about), off));
  }

  function drop1(index) {
    remove([shown[index]]);
    update();
    go(Math.min(index, shown.length - 1));
    if (!shown.length) drop.querySelector(".primary").focus();
  }

  function go(index) {
    if (index < 0 || index >= shown.length) return;
    grid.element.querySelector('.off[tabindex="0"]')?.setAttribute("tabindex", "-1");
    current = index;
    const button = grid.show(index)?.querySelector(".off");
    button?.setAttribute("tabindex", "0");
    button?.focus({ preventScroll: true });
  }

  grid.element.addEventListener("keydown", (event) => {
    const line = Math.max(1, Math.floor(grid.element.clientWidth / 168));
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: line, ArrowUp: -line, Home: -shown.length, End: shown.length }[event.key];
    if (step) {
      event.preventDefault();
      go(Math.max(0, Math.min(shown.length - 1, event.target === grid.element ? current : current + step)));
    } else if (["Delete", "Backspace"].includes(event.key) && shown.length) drop1(current);
  });

  function update() {
    if (signal.aborted) return;
    const all = draft.pictures.length;
    const good = usable();
    onlyBad &&= all > good.length;
    bad.checked = onlyBad;
    shown = onlyBad ? draft.pictures.filter((one) => one.problem) : draft.pictures;
    const made = parts(able.limits);
    const twice = draft.pictures.filter((one) => one.hint).length;
    fill(count, h("strong", {}, plural(all, "picture")), all > good.length ? `, ${number(all - good.length)} can't be used` : "", twice ? `, ${number(twice)} perhaps there twice` : "",
      good.length ? `. ${bytes(good.reduce((sum, one) => sum + one.size, 0))}` : "", made.length > 1 ? ` in ${plural(made.length, "job")}, shown as one batch.` : ".");
    tools.hidden = grid.element.hidden = !all;
    clean.hidden = badBox.hidden = all === good.length;
    drop.classList.toggle("small", all > 0);
    disable(next, good.length ? "" : all ? "None of these pictures can be used." : "Add pictures first.");
    current = Math.min(current, Math.max(0, shown.length - 1));
    grid.redraw();
    grid.count(shown.length);
  }

  const listen = (event, act) => document.addEventListener(event, act, { signal });
  listen("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  listen("dragleave", (event) => event.relatedTarget ?? drop.classList.remove("over"));
  listen("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const address = event.dataTransfer.getData("text/uri-list");
    if (event.dataTransfer.files.length || !address) dropped(event.dataTransfer).then(add).catch(complain);
    else addAddresses(address), update();
  });
  listen("paste", (event) => {
    if (event.target.matches?.("textarea, input")) return;
    const pasted = [...event.clipboardData.files];
    const words = event.clipboardData.getData("text/plain").split(/[\r\n]+/).filter((line) => /^\s*(https?|s3|gs):\/\//i.test(line));
    if (pasted.length) add(pasted.map((file, place) => ({ file, name: file.name === "image.png" ? `pasted ${draft.pictures.length + place + 1}.png` : file.name }))).catch(complain);
    else if (words.length) {
      say(`${plural(addAddresses(words.join("\n")), "address", "addresses")} added.`);
      update();
    }
  });

  fill(main, stepper("pictures"), h("div", { class: "head" }, h("div", {}, h("h1", {}, "Which pictures?"), h("p", { class: "muted" }, "They stay in this tab until you send them.")), next), drop, form, tools, grid.element);
  update();
}
