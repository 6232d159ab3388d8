// Screen: three pictures are read before all of them are paid for, also with two models or prompts side by side.

import { badge, button, duration, empty, field, fill, go, h, icon, money, muted, notice, plural, row, screen, statusBadge } from "./build.js";
import { draft, keep, usable } from "./draft.js";
import { shortName } from "./pictures.js";
import { linesOf } from "./schema.js";
import { fieldsFor, readNow, startRun } from "./send.js";
import { level, modelOf, models } from "./settings.js";
import { alike, three } from "./suggest.js";
import { large } from "./thumbs.js";

export const title = "Try";

// What was tried stays while this tab is open. A column: its settings, and of its last run the job, the items, the pictures, and what was asked.
let chosen = [];
let columns = [{ name: "A", over: {} }];
let redraw = () => {};

const asked = (able, column) => JSON.stringify(fieldsFor(able, column.over));

async function run(able, column) {
  const stop = new AbortController();
  Object.assign(column, { busy: stop, items: null, job: null, error: "", pictures: [...chosen], asked: asked(able, column) });
  redraw();
  try {
    const fields = { ...fieldsFor(able, column.over), name: [`Try ${column.name}`, draft.name].filter(Boolean).join(": ").slice(0, 200) };
    Object.assign(column, await readNow(column.pictures, fields, { signal: stop.signal, seen: (job) => ((column.job = job), redraw()) }));
  } catch (error) {
    column.error = stop.signal.aborted ? "Stopped." : error.message;
  }
  column.busy = null;
  redraw();
}

export async function show(main, { able, signal }) {
  const good = usable();
  chosen = chosen.filter((one) => good.includes(one));
  if (!chosen.length) chosen = three();
  if (!chosen.length) return screen(main, "try", "Try on three pictures", "", null, empty("No picture yet", "Three pictures are read here, so that you see what comes back.", go("Add pictures", "#/new", "primary")));
  const heads = h("div.columns");
  const results = h("div.stack");
  const said = h("p.unseen", { role: "status" });
  const images = new Map(); // picture → its large image, made once

  function head(column) {
    const { name, over } = column;
    const put = (setting) => (value) => {
      over[setting] = value;
      redraw(false);
    };
    const model = modelOf(able, over.model);
    const prompt = h("textarea", { rows: "3", value: over.prompt ?? draft.prompt, placeholder: "Read what this picture shows.", disabled: model.can.prompt === false, on: { input: () => put("prompt")(prompt.value) } });
    const status = row();
    const act = h("button.button.primary", { type: "button", on: { click: () => (column.busy ? column.busy.abort() : run(able, column)) } });
    column.paint = () => {
      const { job, items, busy, error } = column;
      const old = items && (column.asked !== asked(able, column) || column.pictures.some((one) => !chosen.includes(one)));
      const seconds = job?.finishedAt && (new Date(job.finishedAt) - new Date(job.createdAt)) / 1000;
      fill(status, job && statusBadge(job.status), seconds && h("span.muted", [seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds), plural(job.usage.credits, "credit"), money(job.usage.money)].join(" · ")), old && badge("changed since: run again", "warn"), error && h("span.bad-text", error));
      fill(act, busy ? "Stop" : "Run", columns.length > 1 && ` ${name}`, !busy && items && " again");
    };
    const use = () => {
      Object.assign(draft, over);
      keep();
      drawHeads([Object.assign(column, { name: "A", over: {} })]);
    };
    const many = columns.length > 1;
    const depth = (setting) => level(setting, model, over[setting] ?? draft[setting], put(setting));
    return h("section.card.stack", { "aria-label": `Column ${name}` }, row(h("h2.grow", many ? name : "Settings"), many && button(`Use ${name} for all`, use), many && name !== "A" && button(`Remove ${name}`, () => drawHeads(columns.slice(0, 1)), { kind: "quiet" })),
      field("Prompt", prompt, { hint: prompt.disabled ? `${able.engine} follows no prompt.` : "" }), h("div.columns.settings", models(able, model, (value) => (put("model")(value), drawHeads(columns, columns.indexOf(column), "select"))), depth("detail"), depth("thinking")), row(act, status));
  }

  /** Draws the columns, and puts the focus where the person goes on: in the column `at`, on its first `control`. */
  function drawHeads(now, at = 0, control = "textarea") {
    columns = now;
    const compare = () => drawHeads([...columns, { name: "B", over: { ...columns[0].over } }], 1);
    fill(heads, columns.map(head), columns.length < 2 && h("div.empty", button("Compare with another model or prompt", compare)));
    redraw();
    heads.children[at].querySelector(control).focus();
  }

  redraw = (rows = true) => {
    if (signal.aborted) return;
    for (const column of columns) column.paint();
    const some = (what) => columns.some((column) => column[what]);
    fill(said, some("busy") ? "Reading…" : some("items") && "The records are there.");
    if (rows) fill(results, chosen.map(result));
  };

  function result(picture, at) {
    if (!images.has(picture)) images.set(picture, large(picture, signal));
    /** The next picture of this kind that isn't shown yet. */
    const turn = (step, sign, label) => icon(sign, `${label} picture in place of ${picture.name}`, () => {
      const free = alike(picture).filter((one) => one === picture || !chosen.includes(one));
      chosen[at] = free[(free.indexOf(picture) + step + free.length) % free.length];
      redraw();
      results.children[at].querySelectorAll(".icon")[(step + 1) / 2].focus();
    });
    return h("article.card.beside-record", { "aria-label": picture.name }, h("div.stack", row(h("h3.grow.name", { title: picture.name }, shortName(picture)), good.length > 3 && [turn(-1, "‹", "Previous"), turn(1, "›", "Next")]), images.get(picture)), record(picture));
  }

  function record(picture) {
    const found = columns.map((column) => {
      const place = column.pictures?.indexOf(picture) ?? -1;
      return { column, item: column.items?.find((item) => item.index === place), waits: place >= 0 && column.busy };
    });
    if (!found.some(({ item, waits }) => item || waits)) return h("p.muted.none", "Run it to see the record.");
    const many = columns.length > 1;
    const values = found.map(({ item }) => new Map(item?.status === "succeeded" ? linesOf(item.result) : []));
    const both = many && values.every((one) => one.size);
    const rows = [...new Set(values.flatMap((one) => [...one.keys()]))].map((name) => {
      const texts = values.map((one) => one.get(name) ?? "");
      const differs = both && texts[0] !== texts[1];
      return h(differs ? "tr.differs" : "tr", h("th", { scope: "row" }, name, differs && [" ", badge("differs", "warn")]), texts.map((text) => h("td.text", text || h("span.muted", "–"))));
    });
    const states = found.map(({ column, item, waits }) => waits ? muted(h("span.spinner"), ` ${column.name} reads…`) : item && item.status !== "succeeded" && notice("bad", (many ? `${column.name}: ` : "") + (item.message ?? item.code ?? item.status)));
    const heads = ["Field", ...(many ? columns.map((column) => column.name) : ["Value"])];
    return h("div.stack", states, rows.length > 0 && h("div.scroll", { tabindex: "0", role: "region", "aria-label": `Record of ${picture.name}` }, h("table", h("thead", h("tr", heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", rows))));
  }

  const shuffle = () => {
    chosen = alike(chosen[0]).map((one) => [Math.random(), one]).sort(([a], [b]) => a - b).slice(0, 3).map(([, one]) => one);
    redraw();
  };
  screen(main, "try", `Try on ${plural(chosen.length, "picture")}`, [`See what comes back before you read all ${good.length}. `, h("a", { href: "#/fields" }, "Edit the fields")],
    row(good.length > 3 && button("Choose three at random", shuffle), button(`Read all ${good.length}`, () => startRun(main, able), { kind: "primary" })), said, heads, results);
  drawHeads(columns);
}
