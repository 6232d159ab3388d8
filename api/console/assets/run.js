// A run while it works and when it has ended: progress, cost, what failed and what to do about it.

import * as api from "./api.js";
import { keptThumbs, open } from "./batch.js";
import { fill, h } from "./dom.js";
import { ago, duration, money, number, percent, plural, time } from "./format.js";
import { estimate } from "./send.js";
import { stepper } from "./stepper.js";
import { thumb } from "./thumbs.js";
import { ask, badge, bar, button, card, complain, notice, say, statusBadge } from "./ui.js";
import { virtual } from "./virtual.js";

export const title = "Run";

const TILE = 96; // pixels
const SPOKEN_MS = 15000; // between two words to a screen reader
const WINDOW_MS = 60000; // over which the rate is measured
const SIGNS = { succeeded: ["✓", "read"], failed: ["✕", "failed"], running: ["▸", "being read"], queued: ["·", "waiting"] };

/** What to do about a failure, by its code. */
const ADVICE = {
  url_not_allowed: "The service may not fetch from this address. Upload the pictures as files instead.",
  fetch_failed: "The picture could not be fetched. Check that the address opens without signing in, then retry.",
  fetch_timeout: "Its server was too slow. Retry later, or upload the picture as a file.",
  image_too_large: "The file is over the limit. Make it smaller and send it again.",
  unsupported_format: "This is no picture that the service can read. Save it as JPEG or PNG and send it again.",
  image_empty: "The file is empty. Export or copy it again.",
  image_corrupt: "The file is damaged. Export or copy it again.",
  image_too_many_pixels: "The picture has too many pixels. Make it smaller and send it again.",
  image_too_complex: "The file unpacks to too much. Save it as JPEG or PNG and send it again.",
  image_crashed_decoder: "The file can't be opened safely. Save it anew with a picture program.",
  worker_crashed: "The service broke off while reading it. Retry.",
  safety_blocked: "The model refuses to look at it. Another model may take it; otherwise read it by hand.",
  recitation: "The model stopped because its answer repeats a known text. Ask for less text in the prompt.",
  output_truncated: "The answer got too long. Ask for fewer fields, or less detail in them.",
  schema_mismatch: "The answer did not fit the fields. Loosen the fields or describe them better, then retry.",
  model_refused: "The model gave no answer. Change the prompt, or take another model.",
  model_unavailable: "The model could not be asked. Look at Health, then retry.",
  deadline_exceeded: "The time was over. Retry when less is running.",
  money_limit_reached: "Your limit of money was reached. Read the rest in a new run with a higher one.",
  cancelled: "It was not read, because the run was cancelled. Retry to read it.",
  internal_error: "The service made a mistake. Retry; if it fails again, tell whoever runs the service.",
};

export async function show(main, { rest, signal }) {
  const run = await open(main, rest[0], signal);
  if (!run) return;
  const head = h("div", { class: "head" });
  const state = h("div", {});
  const spoken = h("p", { class: "unseen", role: "status" });
  const facts = h("div", {});
  const after = h("div", { class: "stack" });
  const tiles = grid(run, signal);
  fill(main, stepper("run", { run: run.id }), h("div", { class: "stack" }, head, spoken, card(state), after, h("div", { class: "run-columns" }, card(h("h2", {}, "Pictures"), legend(), tiles.element), card(facts))));

  const pace = paceOf();
  let estimated = null;
  let saidAt = 0;
  let saidEnd = run.ended;
  let before = "";
  const paint = () => {
    pace.note(run.succeeded + run.failed);
    const parts = `${run.status} ${run.succeeded} ${run.failed} ${run.total} ${run.sum((job) => job.usage.modelCalls)} ${run.warnings.length} ${estimated ? 1 : 0}`;
    if (parts === before) return void fill(state, progress(run, pace));
    if (before.split(" ")[0] !== run.status) {
      fill(head, heading(run, signal, refresh));
      fill(after, run.ended ? ending(run, refresh) : []);
    }
    before = parts;
    fill(state, progress(run, pace));
    fill(facts, cost(run, estimated));
    if (run.ended ? !saidEnd : Date.now() - saidAt > SPOKEN_MS) {
      saidAt = Date.now();
      saidEnd = run.ended;
      spoken.textContent = run.ended ? `The run has ended. ${number(run.succeeded)} read, ${number(run.failed)} failed.` : `${number(run.succeeded + run.failed)} of ${number(run.total)} done, ${number(run.failed)} failed.`;
    }
  };

  let reading = false;
  let wanted = false;
  /** Reads the pages that changed. One round at a time, so that a fast run does not ask without end. */
  const read = async () => {
    wanted = true;
    if (reading) return;
    reading = true;
    try {
      while (wanted) {
        wanted = false;
        await run.read(signal, tiles.changed);
        if (run.ended) fill(after, ending(run, refresh));
        await api.pause(Math.max(1000, run.total), signal);
      }
    } catch (error) {
      complain(error);
    } finally {
      reading = false;
    }
  };
  const refresh = () => {
    saidEnd = false;
    before = "";
    for (const at of run.jobs.keys()) run.unsettle(at);
    follow();
  };
  const follow = () => {
    paint();
    read();
    if (!run.ended) run.watch(() => (paint(), read()), signal).then(() => (paint(), read()), complain);
  };
  const tick = setInterval(() => run.ended || fill(state, progress(run, pace)), 1000);
  signal.addEventListener("abort", () => clearInterval(tick));
  follow();
  planned(run, signal).then((found) => ((estimated = found), paint()), () => {});
}

/** What the same requests are expected to cost. */
async function planned(run, signal) {
  const costs = await Promise.all(run.jobs.map(async (job) => {
    const { images, image, inputMethod, webhookUrl, ...fields } = await api.call(`api/v1/jobs/${job.id}/request`, { signal });
    return estimate(job.counts.total, Object.fromEntries(Object.entries(fields).filter(([name, value]) => value !== null && !["batch", "name", "metadata", "keepInputsSeconds"].includes(name))), signal);
  }));
  const sum = (of) => costs.reduce((all, one) => all + one[of], 0);
  return { credits: sum("credits"), money: sum("money"), modelCalls: sum("modelCalls") };
}

function heading(run, signal, refresh) {
  const first = run.jobs[0];
  const name = run.name || (run.ended ? "The run has ended" : "The run works");
  const acts = [];
  if (!run.ended) acts.push(button("Cancel the run", () => cancel(run, refresh), { kind: "danger" }));
  acts.push(button("Delete…", () => remove(run), { kind: "quiet" }));
  return [h("div", {}, h("h1", {}, name), h("p", { class: "muted" }, statusBadge(run.status), ` ${plural(run.total, "picture")}${run.jobs.length > 1 ? ` in ${plural(run.jobs.length, "job")}` : ""}, sent `, h("time", { datetime: first.createdAt, title: time(first.createdAt) }, ago(first.createdAt)), run.ended ? "" : ". You can close this tab: the run goes on, and this address shows it again.")), h("div", { class: "row" }, acts)];
}

function progress(run, pace) {
  const done = run.succeeded + run.failed;
  const left = run.total - done;
  const words = [h("strong", {}, `${number(done)} of ${number(run.total)}`), ` done, ${percent(done / Math.max(1, run.total))}`];
  const rate = pace.rate();
  if (!run.ended) words.push(rate ? `. ${rate >= 1 ? `${number(Math.round(rate))} a second` : `${number(Math.max(1, Math.round(rate * 60)))} a minute`}, about ${duration(left / rate)} left` : run.jobs.every((job) => job.status === "queued") ? ". It waits for a worker" : ". The time left is known after some more pictures");
  const at = run.jobs.map((job) => job.finishedAt).filter(Boolean).sort().at(-1);
  if (run.ended && at) words.push(`. Took ${duration((new Date(at) - new Date(run.jobs.map((job) => job.startedAt ?? job.createdAt).sort()[0])) / 1000)}`);
  return [bar([[run.succeeded, "good", "read"], [run.failed, "bad", "failed"]], run.total), h("p", { class: "progress-words" }, words), h("p", { class: "row" }, badge(`✓ ${number(run.succeeded)} read`, "good"), badge(`✕ ${number(run.failed)} failed`, run.failed ? "bad" : ""), run.ended && !left ? null : badge(`· ${number(left)} ${run.ended ? "not read" : "to do"}`, run.ended ? "" : "busy"))];
}

/** Measures how many pictures a second are done, by what was seen in the last minute. */
function paceOf() {
  const seen = [];
  return {
    note(done) {
      const now = Date.now();
      if (!seen.length || seen.at(-1)[1] !== done) seen.push([now, done]);
      while (seen.length > 2 && now - seen[0][0] > WINDOW_MS) seen.shift();
    },
    rate() {
      if (seen.length < 2) return 0;
      const seconds = (Date.now() - seen[0][0]) / 1000;
      return seconds < 2 ? 0 : (seen.at(-1)[1] - seen[0][1]) / seconds;
    },
  };
}

function cost(run, estimated) {
  const of = (name) => run.sum((job) => job.usage[name]);
  const rows = [["Credits", number(of("credits")), estimated && `at most ${number(estimated.credits)}`], ["Money for the model", money(of("money")), estimated && (estimated.money ? `about ${money(estimated.money)}` : "no price known")], ["Model calls", number(of("modelCalls")), estimated && number(estimated.modelCalls)],
    ["Tokens in", number(of("inputTokens")), ""], ["Tokens out", number(of("outputTokens")), ""]];
  if (of("cacheHits")) rows.push(["Answered from the cache", number(of("cacheHits")), ""]);
  const versions = [...new Set(run.jobs.map((job) => job.usage.modelVersion).filter(Boolean))];
  return [h("h2", {}, "Cost"), h("table", { class: "cost" }, h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col", class: "numeric" }, "Used"), h("th", { scope: "col", class: "numeric" }, "Estimate"))), h("tbody", {}, rows.map(([label, used, plan]) => h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "numeric" }, used), h("td", { class: "numeric muted" }, plan || "–"))))),
    run.ended ? null : h("p", { class: "hint" }, "Credits are charged when the run ends."), versions.length ? h("p", { class: "hint" }, `Answered by ${versions.join(", ")}.`) : null,
    run.warnings.length ? notice("warn", h("ul", {}, run.warnings.map((text) => h("li", {}, text)))) : null];
}

function ending(run, refresh) {
  const parts = [];
  const error = run.jobs.find((job) => job.error)?.error;
  if (error) parts.push(notice("bad", h("strong", {}, "The run failed. "), error.message));
  if (run.succeeded) parts.push(h("div", { class: "row" }, h("a", { class: "button primary big", href: `#/review/${run.href}` }, "Review the records"), h("a", { class: "button big", href: `#/export/${run.href}` }, "Export")));
  if (run.failed) parts.push(failures(run, refresh));
  return parts;
}

function failures(run, refresh) {
  const groups = new Map();
  run.items.forEach((item, n) => item.status === "failed" && groups.set(item.code, [...(groups.get(item.code) ?? []), n]));
  const retriable = run.jobs.filter((job) => job.finishedAt && job.counts.failed);
  const lists = [...groups].sort((one, other) => other[1].length - one[1].length).map(([code, numbers]) => h("li", {}, h("p", {}, h("strong", {}, `${number(numbers.length)} × `), h("span", { class: "mono" }, code), ". ", ADVICE[code] ?? "See the message of each."),
    h("details", {}, h("summary", {}, numbers.length === 1 ? "Which one" : "Which ones"), h("ul", { class: "plain" }, numbers.slice(0, 50).map((n) => h("li", {}, h("a", { href: `#/review/${run.href}/${n + 1}` }, run.nameOf(n)), h("span", { class: "muted" }, ` ${run.items[n].message ?? ""}`))), numbers.length > 50 ? h("li", {}, `and ${number(numbers.length - 50)} more; Review shows them all`) : null))));
  return card(h("div", { class: "head" }, h("h2", {}, `${plural(run.failed, "picture")} failed`), button(`Retry ${plural(run.failed, "picture")}`, () => retry(retriable, run, refresh))), h("ul", { class: "plain failures" }, lists));
}

async function retry(jobs, run, refresh) {
  const faults = new Map();
  let begun = 0;
  for (const job of jobs) {
    try {
      run.update(await api.call(`api/v1/jobs/${job.id}/retry`, { method: "POST" }));
      begun++;
    } catch (error) {
      faults.set(error.code ?? error.name, error);
    }
  }
  if (begun) {
    say("The failed pictures are read again. Each costs 1 credit if it is read now.");
    refresh();
  }
  for (const [code, error] of faults) {
    if (code !== "inputs_gone") complain(error);
    else await ask("The pictures are gone", h("p", {}, "The service did not keep these pictures, so it can't read them again. Send them in a new run. To be able to retry, choose under Fields that pictures are kept after the run."), [["", "Close", "primary"]]);
  }
}

async function cancel(run, refresh) {
  const answer = await ask("Cancel the run?", h("p", {}, `What is read already stays and is charged: ${plural(run.succeeded, "picture")} so far. The others are not read.`), [["", "Go on reading"], ["yes", "Cancel the run", "danger"]]);
  if (!answer) return;
  for (const job of run.jobs.filter((one) => !one.finishedAt)) {
    try {
      run.update(await api.call(`api/v1/jobs/${job.id}/cancel`, { method: "POST" }));
    } catch (error) {
      if (error.code !== "already_ended") throw error;
    }
  }
  refresh();
}

async function remove(run) {
  const answer = await ask("Delete the run?", h("p", {}, "Its records, corrections and kept pictures are gone for good. What it cost stays in Usage."), [["", "Keep it"], ["yes", "Delete it", "danger"]]);
  if (!answer) return;
  for (const job of run.jobs) await api.call(`api/v1/jobs/${job.id}`, { method: "DELETE" }).catch((error) => { if (error.status !== 404) throw error; });
  say("The run is deleted.");
  location.hash = "#/jobs";
}

const legend = () => h("p", { class: "legend hint", "aria-hidden": "true" }, Object.entries(SIGNS).map(([status, [sign, label]]) => h("span", {}, h("span", { class: `sign ${status}` }, sign), ` ${label}`)));

/** The tiles. Only those that are seen are drawn, and only those that changed are drawn again. */
function grid(run, signal) {
  const kept = keptThumbs(run, signal);
  const states = [];
  const list = virtual({ height: TILE, across: (width) => Math.max(1, Math.floor(width / TILE)), label: "Pictures of the run", draw });
  list.element.classList.add("tiles");
  const size = () => list.element.style.setProperty("height", `${Math.min(520, Math.ceil(run.total / Math.max(1, Math.floor(list.element.clientWidth / TILE))) * TILE)}px`);
  requestAnimationFrame(size);
  addEventListener("resize", size, { signal });
  list.count(run.total);
  function draw(n) {
    const item = run.items[n];
    const status = item?.status ?? "queued";
    const [sign, word] = SIGNS[status];
    const mine = run.original(n);
    const image = h("span", { class: "tile-picture" }, mine && !mine.url ? thumb(mine) : n + 1);
    const label = `${n + 1}. ${run.nameOf(n)}: ${word}${item?.code ? `, ${item.code}` : ""}`;
    const inside = [image, h("span", { class: `sign ${status}`, "aria-hidden": "true" }, sign)];
    const tile = h("div", { role: "listitem", class: `tile ${status}`, title: item?.message ? `${label}. ${item.message}` : label }, h("a", { href: `#/review/${run.href}/${n + 1}`, "aria-label": label }, inside));
    if (!mine) kept(image, n);
    return tile;
  }
  return {
    element: list.element,
    changed(first, count) {
      const only = new Set();
      for (let n = first; n < first + count; n++) {
        const now = run.items[n].status;
        if (states[n] !== now) only.add(n);
        states[n] = now;
      }
      if (only.size) list.redraw(only);
    },
  };
}
