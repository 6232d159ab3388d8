// Screen: three pictures are read before all of them are paid for, also with two models or prompts side by side.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { draft, keep, usable } from "./draft.js";
import { duration, money, plural } from "./format.js";
import { shortName } from "./pictures.js";
import { linesOf } from "./schema.js";
import { fieldsFor, startRun, submit } from "./send.js";
import { choices, modelOf, priced } from "./settings.js";
import { stepper } from "./stepper.js";
import { three } from "./suggest.js";
import { large } from "./thumbs.js";
import { badge, button, complain, disable, empty, field, notice, select, statusBadge } from "./ui.js";

export const title = "Try";

// What was tried stays while this tab is open. A column: its settings, and of its last run the job, the items, what it was asked.
let chosen = [];
let columns = [{ name: "A" }];
let redraw = () => {};

const asked = (able, column) => JSON.stringify(fieldsFor(able, column.over ?? {}));

async function run(able, column) {
  if (column.busy) return;
  const stop = new AbortController();
  Object.assign(column, { busy: stop, items: null, job: null, error: "", pictures: [...chosen], asked: asked(able, column) });
  redraw();
  try {
    const job = (column.job = await submit(column.pictures, { ...fieldsFor(able, column.over ?? {}), name: `Try ${column.name}${draft.name ? `: ${draft.name}` : ""}` }, { signal: stop.signal }));
    stop.signal.addEventListener("abort", () => api.call(`api/v1/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => {}));
    await api.follow(job.id, (state) => ((column.job = state), redraw()), stop.signal);
    column.job = await api.call(`api/v1/jobs/${job.id}`);
    column.items = (await api.call(`api/v1/jobs/${job.id}/items`)).items;
  } catch (error) {
    column.error = error.name === "AbortError" ? "Stopped." : error.message;
  }
  column.busy = null;
  redraw();
}

export async function show(main, { able, signal }) {
  const good = usable();
  chosen = chosen.filter((one) => good.includes(one));
  if (!chosen.length) chosen = three();
  if (!chosen.length) return fill(main, stepper("try"), h("h1", {}, "Try on three pictures"), empty("No picture yet", "Add pictures first; three of them are read here to see what comes back.", h("a", { class: "button primary", href: "#/new" }, "Add pictures")));
  const heads = h("div", { class: "columns" });
  const results = h("div", { class: "stack" });
  const said = h("p", { class: "unseen", role: "status" });
  const images = new Map(); // picture → its large image, made once

  function head(column) {
    const over = (column.over ??= {});
    const put = (name) => (value) => {
      over[name] = value;
      redraw(false);
    };
    const model = modelOf(able, over.model ?? draft.model);
    const prompt = h("textarea", { rows: "3", value: over.prompt ?? draft.prompt, placeholder: "Read what this picture shows." });
    prompt.addEventListener("input", () => put("prompt")(prompt.value));
    const status = h("div", { class: "row" });
    column.paint = () => {
      const job = column.job;
      const old = column.items && (column.asked !== asked(able, column) || column.pictures.some((one) => !chosen.includes(one)));
      const seconds = job?.finishedAt ? (new Date(job.finishedAt) - new Date(job.createdAt)) / 1000 : 0;
      fill(status, job ? statusBadge(job.status) : null, job?.finishedAt ? h("span", { class: "muted" }, `${seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds)} · ${plural(job.usage.credits, "credit")} · ${money(job.usage.money)}`) : null,
        old ? badge("changed since: run again", "warn") : null, column.error ? h("span", { class: "bad-text" }, column.error) : null);
      fill(go, column.busy ? "Stop" : column.items ? `Run ${column.name} again` : `Run ${column.name}`);
    };
    const go = h("button", { type: "button", class: "button primary", on: { click: () => (column.busy ? column.busy.abort() : run(able, column).catch(complain)) } });
    const take = button(`Use ${column.name} for all`, () => {
      Object.assign(draft, over);
      for (const one of columns) one.over = one === column ? {} : one.over;
      columns = [{ ...column, name: "A" }];
      keep();
      drawHeads();
    });
    const close = button(`Remove ${column.name}`, () => ((columns = columns.filter((one) => one !== column)), drawHeads()), { kind: "quiet" });
    return h("section", { class: "card stack", "aria-label": `Column ${column.name}` }, h("div", { class: "row" }, h("h2", { class: "grow" }, columns.length > 1 ? column.name : "Settings"), columns.length > 1 ? [take, column.name === "A" ? null : close] : null),
      field("Prompt", model.can?.prompt === false ? disable(prompt, `${able.engine} follows no prompt.`) : prompt),
      h("div", { class: "settings" }, field("Model", select(able.models.map((one) => [one.name, priced(one)]), model.name, (value) => (put("model")(value), drawHeads()))),
        ["detail", "thinking"].map((name) => field(name === "detail" ? "Detail" : "Thinking", select(choices(name, model), over[name] ?? draft[name], put(name))))),
      h("div", { class: "row" }, go, status));
  }

  function drawHeads() {
    const more = columns.length < 2 ? button("Compare with another model or prompt", () => {
      columns.push({ name: "B", over: { ...columns[0].over } });
      drawHeads();
      heads.lastChild.querySelector("textarea").focus();
    }) : null;
    fill(heads, columns.map(head), more ? h("div", { class: "beside" }, more) : null);
    redraw();
  }

  redraw = (rows = true) => {
    if (signal.aborted) return;
    for (const column of columns) column.paint();
    const busy = columns.some((column) => column.busy);
    fill(said, busy ? "Reading…" : columns.some((column) => column.items) ? "The records are there." : "");
    if (rows) fill(results, chosen.map(result));
  };

  function result(picture, at) {
    if (!images.has(picture)) images.set(picture, large(picture, signal));
    const turn = (step) => {
      let to = good.indexOf(picture);
      do to = (to + step + good.length) % good.length;
      while (good[to] !== picture && (chosen.includes(good[to]) || Boolean(good[to].url) !== Boolean(picture.url)));
      chosen[at] = good[to];
      redraw();
      results.children[at].querySelector(step > 0 ? ".next" : ".back").focus();
    };
    const icon = (label, text, step, kind) => h("button", { type: "button", class: `icon ${kind}`, "aria-label": `${label} picture in place of ${picture.name}`, on: { click: () => turn(step) } }, text);
    return h("article", { class: "card beside-record", "aria-label": picture.name },
      h("div", { class: "stack" }, h("div", { class: "row" }, h("h3", { class: "grow name", title: picture.name }, shortName(picture)), good.length > 3 ? [icon("Previous", "‹", -1, "back"), icon("Next", "›", 1, "next")] : null), images.get(picture)), record(picture));
  }

  function record(picture) {
    const found = columns.map((column) => {
      const place = column.pictures?.indexOf(picture) ?? -1;
      return { column, item: place < 0 ? null : column.items?.find((item) => item.index === place), waits: place >= 0 && column.busy };
    });
    if (found.every(({ item, waits }) => !item && !waits)) return h("p", { class: "muted none" }, "Run it to see the record of this picture.");
    const values = found.map(({ item }) => new Map(item?.result !== undefined && item?.result !== null ? linesOf(item.result) : []));
    const names = [...new Set(values.flatMap((one) => [...one.keys()]))];
    const both = found.length > 1 && found.every(({ item }) => item?.status === "succeeded");
    const rows = names.map((name) => {
      const texts = values.map((one) => one.get(name) ?? "");
      const differs = both && texts[0] !== texts[1];
      return h("tr", { class: differs ? "differs" : "" }, h("th", { scope: "row" }, name, differs ? [" ", badge("differs", "warn")] : null), texts.map((text) => h("td", { class: "value" }, text || h("span", { class: "muted" }, "–"))));
    });
    const states = found.map(({ column, item, waits }) => waits ? h("p", { class: "muted" }, h("span", { class: "spinner" }), ` ${column.name} reads…`) : item && item.status !== "succeeded" ? notice("bad", `${columns.length > 1 ? `${column.name}: ` : ""}${item.message ?? item.code ?? item.status}`) : null);
    return h("div", { class: "stack" }, states, rows.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Record of ${picture.name}` }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Field"), columns.map((column) => h("th", { scope: "col" }, columns.length > 1 ? column.name : "Value")))), h("tbody", {}, rows))) : null);
  }

  const shuffle = good.length > 3 ? button("Choose three at random", () => {
    const same = good.filter((one) => Boolean(one.url) === Boolean(chosen[0].url));
    chosen = same.map((one) => [Math.random(), one]).sort(([a], [b]) => a - b).slice(0, 3).map(([, one]) => one);
    redraw();
  }) : null;
  fill(main, stepper("try"),
    h("div", { class: "head" }, h("div", {}, h("h1", {}, `Try on ${plural(chosen.length, "picture")}`), h("p", { class: "muted" }, `See what comes back before you read all ${good.length}. `, h("a", { href: "#/fields" }, "Edit the fields"))),
      h("div", { class: "row" }, shuffle, button(`Read all ${good.length}`, () => startRun(main, able), { kind: "primary" }))),
    said, heads, results);
  drawHeads();
}
