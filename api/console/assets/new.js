// Screen: the pictures.

import { button, bytes, check, complain, disable, field, fill, h, icon, muted, number, picker, plural, row, say, screen } from "./build.js";
import { draft, usable } from "./draft.js";
import { addAddresses, addFiles, dropped, parts, remove, shortName } from "./pictures.js";
import { inspect, thumb } from "./thumbs.js";
import { virtual } from "./virtual.js";

export const title = "Pictures";
const WIDE = 168; // pixels, the least width of a tile with the gap
const HIGH = 204;
const ADDRESS = /^\s*(https?|s3|gs):\/\//i;

export async function show(main, { signal, able }) {
  let shown = [];
  let current = 0; // whose button the Tab key reaches
  const count = h("p.grow", { role: "status" });
  const across = (width) => Math.max(1, Math.floor(width / WIDE));
  const list = virtual({ draw, height: HIGH, across, label: "Pictures", margin: 2 });
  const grid = list.element;
  grid.className += " card shots";
  const next = button("Next: fields", () => (location.hash = "#/fields"), { kind: "primary" });

  const chosen = (files) => add(files.map((file) => ({ file, name: file.webkitRelativePath || file.name })));
  const files = picker({ multiple: true }, chosen);
  const folder = picker({ webkitdirectory: true }, chosen);
  const choose = button("Choose files", () => files.click(), { kind: "primary" });
  const drop = h("section.empty.drop", { "aria-label": "Add pictures" },
    h("div", h("h2", "Drop pictures or a folder here"), muted(`or paste pictures and addresses. JPEG, PNG, WebP, HEIC, TIFF and many more, up to ${bytes(able.limits.imageBytes ?? 0)} each.`)),
    row(files, folder, choose, button("Choose a folder", () => folder.click()), button("Paste URLs", urls)));

  const text = h("textarea", { spellcheck: "false", placeholder: "https://example.com/receipt.jpg" });
  const form = h("form.card.stack", { hidden: true, on: { submit } }, field("Addresses of pictures, one a line", text), row(h("button.button.primary", "Add"), button("Cancel", urls)));
  const bad = check("Only those that can't be used", { on: { change: () => update() } });
  const clean = button("Remove what can't be used", () => take(draft.pictures.filter((one) => one.problem)));
  const tools = row(count, bad.line, clean, button("Remove all", () => take(draft.pictures), { kind: "quiet" }));

  function urls() {
    form.hidden = !form.hidden;
    if (!form.hidden) text.focus();
  }

  function submit(event) {
    event.preventDefault();
    form.hidden = true;
    addUrls(text.value);
    text.value = "";
    next.focus();
  }

  function addUrls(lines) {
    say(`${plural(addAddresses(lines), "address", "addresses")} added.`);
    update();
  }

  async function add(entries) {
    await addFiles(entries, able, () => update(false)); // what is drawn stays, because the new ones follow
    update();
    await inspect(update);
  }

  function take(gone) {
    remove(gone);
    update();
    if (!draft.pictures.length) choose.focus();
  }

  function draw(index) {
    const one = shown[index];
    const off = icon("×", `Remove ${one.name}`, () => takeAt(index), "off");
    off.tabIndex = index === current ? 0 : -1;
    off.addEventListener("focus", () => (current = index));
    const about = one.problem || one.hint || (one.url ? one.url.replace(/^\w+:\/\//, "") : bytes(one.size));
    const kind = one.problem ? "bad" : one.hint ? "warn" : "";
    return h("div", { class: `shot ${kind}`, role: "listitem" }, h("div", thumb(one, update), h("p.name", { title: one.name }, shortName(one)), h("p", { class: `about ${kind}`, title: about }, about), off));
  }

  function takeAt(index) {
    take([shown[index]]);
    move(Math.min(index, shown.length - 1));
  }

  function move(index) {
    if (index < 0) return;
    for (const off of grid.querySelectorAll(".off")) off.tabIndex = -1;
    current = index;
    const off = list.show(index).querySelector(".off");
    off.tabIndex = 0;
    off.focus({ preventScroll: true });
  }

  grid.addEventListener("keydown", (event) => {
    const line = across(grid.clientWidth);
    const last = shown.length - 1;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: line, ArrowUp: -line, Home: -last, End: last }[event.key];
    if (step) {
      event.preventDefault();
      move(Math.max(0, Math.min(last, event.target === grid ? current : current + step)));
    } else if (["Delete", "Backspace"].includes(event.key) && last >= 0) takeAt(current);
  });

  function update(again = true) {
    if (signal.aborted) return;
    const all = draft.pictures.length;
    const good = usable();
    const unfit = all - good.length;
    const twice = draft.pictures.filter((one) => one.hint).length;
    const jobs = parts(able.limits).length;
    bad.box.checked &&= unfit > 0;
    shown = bad.box.checked ? draft.pictures.filter((one) => one.problem) : draft.pictures;
    fill(count, h("strong", plural(all, "picture")), unfit ? `, ${number(unfit)} can't be used` : "", twice ? `, ${number(twice)} perhaps there twice` : "",
      good.length ? `. ${bytes(good.reduce((sum, one) => sum + one.size, 0))}` : "", jobs > 1 ? ` in ${plural(jobs, "job")}, shown as one batch.` : ".");
    tools.hidden = grid.hidden = !all;
    clean.hidden = bad.line.hidden = !unfit;
    drop.classList.toggle("small", all > 0);
    disable(next, good.length ? "" : "Add pictures that can be used.");
    current = Math.max(0, Math.min(current, shown.length - 1));
    if (again) list.redraw();
    list.count(shown.length);
  }

  /** Takes the files, folders or addresses of a drop or a paste. */
  function bring(data, named = (entry) => entry) {
    const lines = data.getData("text/plain").split(/[\r\n]+/).filter((line) => ADDRESS.test(line));
    if (data.files.length) dropped(data).then((entries) => add(entries.map(named))).catch(complain);
    else if (lines.length) addUrls(lines.join("\n"));
  }

  const listen = (event, act) => document.addEventListener(event, act, { signal });
  const over = (on) => drop.classList.toggle("over", on);
  listen("dragover", (event) => (event.preventDefault(), over(true)));
  listen("dragleave", (event) => event.relatedTarget ?? over(false));
  listen("drop", (event) => {
    event.preventDefault();
    over(false);
    bring(event.dataTransfer);
  });
  // A browser calls every picture of the clipboard "image.png".
  listen("paste", (event) => event.target.matches?.("textarea, input") || bring(event.clipboardData, ({ file, name }, at) => ({ file, name: name === "image.png" ? `pasted ${draft.pictures.length + at + 1}.png` : name })));

  screen(main, "pictures", "Which pictures?", "They stay in this tab until you send them.", next, drop, form, tools, grid);
  update();
}
