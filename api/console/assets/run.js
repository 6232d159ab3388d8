// A run while it works and when it has ended: progress, cost, what failed and what to do about it.

import * as api from "./api.js";
import { keptThumbs, open } from "./batch.js";
import { fill, h } from "./dom.js";
import { duration, money, number, percent, plural } from "./format.js";
import { go, sign } from "./parts.js";
import { estimate } from "./send.js";
import { stepper } from "./stepper.js";
import { thumb } from "./thumbs.js";
import { ask, badge, bar, button, card, complain, head, link, list, notice, say, statusBadge, table, when } from "./ui.js";
import { virtual } from "./virtual.js";

export const title = "Run";

const TILE = 96; // pixels
const SPOKEN_MS = 15000; // between two words to a screen reader
const WINDOW_MS = 60000; // over which the rate is measured
const MOST_LISTED = 50; // pictures under one reason
/** Sign, kind of badge and word of a picture's status. */
const STATES = { succeeded: ["✓", "good", "read"], failed: ["✕", "bad", "failed"], running: ["▸", "busy", "being read"], queued: ["·", "", "waiting"] };

/** What to do about a failure, and its codes. */
const ADVICE = [
  ["The service may not fetch from this address. Upload the picture as a file.", "url_not_allowed"],
  ["Check that its address opens without signing in, then retry.", "fetch_failed"],
  ["Its server was too slow. Retry later, or upload the picture as a file.", "fetch_timeout"],
  ["Make the picture smaller, and send it again.", "image_too_large image_too_many_pixels"],
  ["Save it as JPEG or PNG, and send it again.", "unsupported_format image_too_complex image_crashed_decoder"],
  ["The file is empty or damaged. Copy it again.", "image_empty image_corrupt"],
  ["The model refuses to look at it. Another model may take it.", "safety_blocked"],
  ["The answer repeats a known text. Ask for less text in the prompt.", "recitation"],
  ["The answer got too long. Ask for fewer fields.", "output_truncated"],
  ["The answer did not fit the fields. Describe them better.", "schema_mismatch"],
  ["The model gave no answer. Change the prompt, or take another model.", "model_refused"],
  ["Look at Health, then retry.", "model_unavailable"],
  ["The time was over. Retry when less is running.", "deadline_exceeded"],
  ["Your limit of money was reached. Read the rest in a new run.", "money_limit_reached"],
  ["The run was cancelled. Retry to read it.", "cancelled"],
  ["Retry. If it fails again, tell whoever runs the service.", "worker_crashed internal_error"],
];

export async function show(main, { rest, signal }) {
  const run = await open(main, rest[0], signal);
  if (!run) return;
  const [top, state, facts, after] = ["div", "div", "div", "div.stack"].map((kind) => h(kind));
  const spoken = h("p.unseen", { role: "status" });
  const tiles = grid(run, signal);
  const legend = h("p.legend.hint", { "aria-hidden": "true" }, Object.values(STATES).map(([mark, kind, word]) => h("span", sign(mark, kind), ` ${word}`)));
  fill(main, stepper("run", { run: run.id }), h("div.stack", top, spoken, card(state), after, h("div.run-columns", card("Pictures", legend, tiles.element), card(facts))));

  const rate = rateOf();
  let estimated = null;
  let saidAt = 0;
  let saidEnd = run.ended;
  let status = "";
  const tell = () => fill(state, progress(run, rate()));
  const end = () => fill(after, run.ended && ending(run, refresh));
  const paint = () => {
    rate(run.done);
    if (status !== run.status) {
      fill(top, heading(run, refresh));
      end();
    }
    status = run.status;
    tell();
    fill(facts, cost(run, estimated));
    if (run.ended ? saidEnd : Date.now() - saidAt < SPOKEN_MS) return;
    saidAt = Date.now();
    saidEnd = run.ended;
    spoken.textContent = run.ended ? `The run has ended. ${number(run.succeeded)} read, ${number(run.failed)} failed.` : `${number(run.done)} of ${number(run.total)} done, ${number(run.failed)} failed.`;
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
        end();
        await api.pause(Math.max(1000, run.total), signal);
      }
    } catch (error) {
      complain(error);
    } finally {
      reading = false;
    }
  };
  const look = () => (paint(), read());
  const follow = () => {
    look();
    if (!run.ended) run.watch(look, signal).then(look, complain);
  };
  /** After a retry or a cancel. */
  function refresh() {
    saidEnd = false;
    status = "";
    for (const at of run.jobs.keys()) run.unsettle(at);
    follow();
  }
  const tick = setInterval(() => run.ended || tell(), 1000);
  signal.addEventListener("abort", () => clearInterval(tick));
  follow();
  planned(run, signal).then((found) => ((estimated = found), paint()), () => {});
}

/** What the same requests are expected to cost: a function of "credits", "money" or "modelCalls". */
async function planned(run, signal) {
  const costs = await Promise.all((await run.requests(signal)).map(({ inputMethod, webhookUrl, batch, name, metadata, keepInputsSeconds, ...fields }, at) => {
    for (const one in fields) if (fields[one] === null) delete fields[one];
    return estimate(run.jobs[at].counts.total, fields, signal);
  }));
  return (of) => costs.reduce((all, one) => all + one[of], 0);
}

function heading(run, refresh) {
  const { createdAt } = run.jobs[0];
  const jobs = run.jobs.length > 1 ? ` in ${plural(run.jobs.length, "job")}` : "";
  return head(run.name || (run.ended ? "The run has ended" : "The run works"), [statusBadge(run.status), ` ${plural(run.total, "picture")}${jobs}, sent `, when(createdAt), !run.ended && ". You can close this tab: the run goes on, and this address shows it again."],
    !run.ended && button("Cancel the run", () => cancel(run, refresh), { kind: "danger" }), button("Delete…", () => remove(run), { kind: "quiet" }));
}

function progress(run, rate) {
  const left = run.total - run.done;
  const times = (name) => run.jobs.map((job) => job[name]).filter(Boolean).sort();
  const speed = rate >= 1 ? `${number(Math.round(rate))} a second` : `${number(Math.max(1, Math.round(rate * 60)))} a minute`;
  const took = (new Date(times("finishedAt").at(-1)) - new Date([...times("startedAt"), ...times("createdAt")][0])) / 1000;
  const words = run.ended ? `. Took ${duration(took)}` : rate ? `. ${speed}, about ${duration(left / rate)} left` : run.status === "queued" ? ". It waits for a worker" : ". The time left is known after some more pictures";
  return [bar([[run.succeeded, "good", "read"], [run.failed, "bad", "failed"]], run.total), h("p", h("strong", `${number(run.done)} of ${number(run.total)}`), ` done, ${percent(run.done / Math.max(1, run.total))}${words}`),
    h("p.row", badge(`✓ ${number(run.succeeded)} read`, "good"), badge(`✕ ${number(run.failed)} failed`, run.failed ? "bad" : ""), left || !run.ended ? badge(`· ${number(left)} ${run.ended ? "not read" : "to do"}`, run.ended ? "" : "busy") : null)];
}

/** Measures how many pictures a second are done, by what was seen in the last minute. Called with a count it remembers that. */
function rateOf() {
  const seen = [];
  return (done) => {
    const now = Date.now();
    if (done !== undefined && seen.at(-1)?.[1] !== done) seen.push([now, done]);
    while (seen.length > 2 && now - seen[0][0] > WINDOW_MS) seen.shift();
    const seconds = (now - seen[0][0]) / 1000;
    return seconds < 2 ? 0 : (seen.at(-1)[1] - seen[0][1]) / seconds;
  };
}

function cost(run, estimated) {
  const of = (name) => run.sum((job) => job.usage[name]);
  const plan = (show, name) => (estimated ? show(estimated(name)) : "–");
  const rows = [["Credits", number(of("credits")), plan((value) => `at most ${number(value)}`, "credits")], ["Money", money(of("money")), plan((value) => (value ? `about ${money(value)}` : "no price known"), "money")], ["Model calls", number(of("modelCalls")), plan(number, "modelCalls")],
    ...[["Tokens in", "inputTokens"], ["Tokens out", "outputTokens"], ["From the cache", "cacheHits"]].map(([label, name]) => [label, number(of(name)), "–"])];
  const versions = [...new Set(run.jobs.map((job) => job.usage.modelVersion).filter(Boolean))];
  return [h("h2", "Cost"), table("Cost", ["", "Used", "Estimate"].map((label, at) => ({ label, numeric: at > 0 })), rows), !run.ended && h("p.hint", "Credits are charged when the run ends."), versions.length > 0 && h("p.hint", `Answered by ${versions.join(", ")}.`),
    run.warnings.length > 0 && notice("warn", list(run.warnings))];
}

function ending(run, refresh) {
  const error = run.jobs.find((job) => job.error)?.error;
  const looks = run.sum((job) => job.counts.needsReview ?? 0);
  return [error && notice("bad", h("strong", "The run failed. "), error.message), run.succeeded > 0 && h("div.row", go("review", run, looks ? `Review the ${plural(looks, "record")} to look at` : "Review the records", "primary big"), go("export", run, "Export", "big")), run.failed > 0 && failures(run, refresh)];
}

function failures(run, refresh) {
  const groups = new Map();
  run.items.forEach((item, n) => item.status === "failed" && groups.set(item.code, [...(groups.get(item.code) ?? []), n]));
  const lists = [...groups].sort((one, other) => other[1].length - one[1].length).map(([code, numbers]) => {
    const more = numbers.length - MOST_LISTED;
    return h("li", h("p", h("strong", `${number(numbers.length)} × `), h("code", code), ". ", ADVICE.find(([, codes]) => codes.split(" ").includes(code))?.[0] ?? "See the message of each."),
      h("details", h("summary", "Show them"), h("ul.plain", numbers.slice(0, MOST_LISTED).map((n) => h("li", link(run.nameOf(n), `#/review/${run.href}/${n + 1}`), h("span.muted", ` ${run.items[n].message ?? ""}`))), more > 0 && h("li", `and ${number(more)} more; Review shows them all`))));
  });
  const what = plural(run.failed, "picture");
  return card(h("div.head", h("h2", `${what} failed`), button(`Retry ${what}`, () => retry(run, refresh))), h("ul.plain.failures", lists));
}

async function retry(run, refresh) {
  const faults = new Map();
  let begun = false;
  for (const job of run.jobs.filter((one) => one.finishedAt && one.counts.failed)) {
    try {
      run.update(await api.call(`api/v1/jobs/${job.id}/retry`, { method: "POST" }));
      begun = true;
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
    else await ask("The pictures are gone", h("p", "The service did not keep these pictures, so it can't read them again. Send them in a new run, and choose under Fields how long pictures are kept after it."), [["", "Close", "primary"]]);
  }
}

/** Does something with each job after a question. What is `past` already is no fault. */
async function each(run, question, text, no, yes, past, act) {
  if (!(await ask(question, h("p", text), [["", no], ["yes", yes, "danger"]]))) return false;
  for (const job of run.jobs) {
    try {
      await act(job);
    } catch (error) {
      if (error.code !== past) throw error;
    }
  }
  return true;
}

async function cancel(run, refresh) {
  const text = `What is read already stays and is charged: ${plural(run.succeeded, "picture")} so far. The others are not read.`;
  if (await each(run, "Cancel the run?", text, "Go on reading", "Cancel the run", "already_ended", async (job) => run.update(await api.call(`api/v1/jobs/${job.id}/cancel`, { method: "POST" })))) refresh();
}

async function remove(run) {
  const text = "Its records, corrections and kept pictures are gone for good. What it cost stays in Usage.";
  if (!(await each(run, "Delete the run?", text, "Keep it", "Delete it", "not_found", (job) => api.call(`api/v1/jobs/${job.id}`, { method: "DELETE" })))) return;
  say("The run is deleted.");
  location.hash = "#/jobs";
}

/** The tiles. Only those that are seen are drawn, and only those that changed are drawn again. */
function grid(run, signal) {
  const kept = keptThumbs(run, signal);
  const states = [];
  const across = (width) => Math.max(1, Math.floor(width / TILE));
  const shown = virtual({ height: TILE, across, label: "Pictures of the run", draw });
  const { element } = shown;
  element.classList.add("pics");
  const size = () => element.style.setProperty("height", `${Math.min(520, Math.ceil(run.total / across(element.clientWidth)) * TILE)}px`);
  requestAnimationFrame(size);
  addEventListener("resize", size, { signal });
  shown.count(run.total);
  function draw(n) {
    const { status = "queued", code, message } = run.items[n] ?? {};
    const [mark, kind, word] = STATES[status];
    const mine = run.original(n);
    const image = h("span.pic-in", mine && !mine.url ? thumb(mine) : n + 1);
    const label = `${n + 1}. ${run.nameOf(n)}: ${word}${code ? `, ${code}` : ""}`;
    if (!mine) kept(image, n);
    return h("div", { role: "listitem", class: `pic ${kind}`, title: message ? `${label}. ${message}` : label }, h("a", { href: `#/review/${run.href}/${n + 1}`, "aria-label": label }, image, sign(mark, kind)));
  }
  return {
    element,
    changed(first, count) {
      const only = new Set();
      for (let n = first; n < first + count; n++) {
        const { status } = run.items[n];
        if (states[n] !== status) only.add(n);
        states[n] = status;
      }
      if (only.size) shown.redraw(only);
    },
  };
}
