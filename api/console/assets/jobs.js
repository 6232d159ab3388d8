// The account's jobs, the newest first. The jobs of one batch are one entry.

import { call, pause, query } from "./api.js";
import { fill, h } from "./dom.js";
import { ago, number, percent, plural, time } from "./format.js";
import { badge, bar, button, empty, field, link, notice, search, select, statusBadge } from "./ui.js";

export const title = "Jobs";
const STATUSES = [["", "Every status"], ["queued", "Queued"], ["running", "Running"], ["finalizing", "Finalizing"], ["succeeded", "Succeeded"], ["partial", "Partial"], ["failed", "Failed"], ["cancelled", "Cancelled"]];
const PAGE = 50;
const LOOK = 3000; // milliseconds between two looks at jobs that run

export async function show(main, { signal }) {
  const wanted = { q: "", status: "", from: "", to: "" };
  let jobs = [];
  let cursor = null;
  let asked = new AbortController();
  signal.addEventListener("abort", () => asked.abort());
  const list = h("ul", { class: "entries", "aria-label": "Jobs" });
  const counted = h("p", { class: "muted", role: "status" });
  const more = h("div", { class: "row centre" });
  const day = (name) => h("input", { type: "date", on: { change: (event) => ((wanted[name] = event.target.value), load()) } });
  fill(main,
    h("div", { class: "head" }, h("h1", {}, "Jobs"), link("New job", "#/new", { class: "button primary" })),
    h("div", { class: "filters", role: "search" },
      field("Search", search("Name, prompt or id", (text) => ((wanted.q = text), load()))),
      field("Status", select(STATUSES, "", (value) => ((wanted.status = value), load()))),
      field("From", day("from")), field("To", day("to"))),
    counted, list, more);

  async function load(further = false) {
    asked.abort();
    asked = new AbortController();
    const mine = asked.signal;
    let page;
    try {
      page = await call("api/v1/jobs" + query({ ...spoken(wanted), limit: PAGE, cursor: further ? cursor : "" }), { signal: mine });
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(list);
      fill(more);
      return void fill(counted, notice("bad", error.message, " ", button("Try again", () => load())));
    }
    const before = jobs.length;
    jobs = further ? [...jobs, ...page.jobs] : page.jobs;
    cursor = page.nextCursor;
    draw();
    if (further) list.children[Math.min(before, list.children.length - 1)]?.querySelector("a")?.focus();
  }

  function draw() {
    const entries = together(jobs);
    const filtered = Object.values(wanted).some(Boolean);
    const focused = document.activeElement?.getAttribute("href");
    fill(list, entries.map(entry));
    list.hidden = !entries.length;
    if (focused) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    if (entries.length) fill(counted, `${plural(entries.length, "entry", "entries")}${cursor ? ", and more" : ""}`);
    else fill(counted, filtered ? empty("No job is like that", "Change the search, the status or the dates.") : empty("No jobs yet", "Drop pictures, say what to read in them, and the job appears here.", link("New job", "#/new", { class: "button primary" })));
    fill(more, cursor ? button("Load more", () => load(true)) : null);
  }

  await load();
  // What runs is looked at again while the page is seen: one request for all of the list.
  (async () => {
    for (let wait = LOOK; ; ) {
      await pause(wait, signal);
      if (document.hidden || jobs.every((job) => job.finishedAt)) continue;
      const mine = asked.signal;
      try {
        const fresh = new Map((await call("api/v1/jobs" + query({ ...spoken(wanted), limit: Math.min(100, Math.max(PAGE, jobs.length)) }), { signal })).jobs.map((job) => [job.id, job]));
        if (mine.aborted) continue;
        const known = new Set(jobs.map((job) => job.id));
        const added = [...fresh.values()].filter((job) => !known.has(job.id) && (!jobs.length || job.createdAt >= jobs[0].createdAt));
        jobs = [...added, ...jobs.map((job) => fresh.get(job.id) ?? job)];
        draw();
        wait = LOOK;
      } catch (error) {
        if (signal.aborted) return;
        wait = Math.min(60000, Math.max(wait * 2, 1000 * (error.retryAfter ?? 0)));
      }
    }
  })().catch(() => {}); // the screen was left
}

/** The dates of a form are days of the person's clock; the API takes moments. */
function spoken({ q, status, from, to }) {
  const moment = (day, add) => {
    if (!day) return "";
    const [year, month, date] = day.split("-").map(Number);
    return new Date(year, month - 1, date + add).toISOString();
  };
  return { q, status, from: moment(from, 0), to: moment(to, 1) };
}

/** Jobs of one batch become one entry at the place of the newest. */
function together(jobs) {
  const entries = new Map();
  for (const job of jobs) {
    const id = job.batch ? `batch:${job.batch}` : job.id;
    entries.set(id, [...(entries.get(id) ?? []), job]);
  }
  return [...entries];
}

function entry([id, jobs]) {
  const sum = (name) => jobs.reduce((all, job) => all + job.counts[name], 0);
  const [total, succeeded, failed] = [sum("total"), sum("succeeded"), sum("failed")];
  const running = jobs.some((job) => !job.finishedAt);
  const progress = jobs.reduce((all, job) => all + job.progress * job.counts.total, 0) / Math.max(1, total);
  const states = [...new Set(jobs.map((job) => job.status))];
  const name = jobs[0].name || jobs[0].metadata?.name || jobs[0].id;
  const credits = jobs.reduce((all, job) => all + job.usage.credits, 0);
  return h("li", { class: "entry" },
    h("div", {}, link(String(name), `#/${running ? "run" : "review"}/${encodeURIComponent(id)}`, { class: "entry-name" }),
      h("p", { class: "hint" }, `${plural(total, "picture")}${jobs.length > 1 ? `, a batch of ${plural(jobs.length, "job")}` : ""}, `, h("time", { datetime: jobs[0].createdAt, title: time(jobs[0].createdAt) }, ago(jobs[0].createdAt)))),
    h("div", {}, bar([[succeeded, "good", "done"], [failed, "bad", "failed"], [running ? Math.max(0, progress * total - succeeded - failed) : 0, "busy", "under way"]].filter(([count]) => count), total),
      h("p", { class: "hint" }, `${number(succeeded)} done${failed ? `, ${number(failed)} failed` : ""}${running ? `, ${percent(progress)}` : ""}`)),
    h("div", { class: "states" }, states.length > 2 ? badge(running ? "running" : "mixed", running ? "busy" : "warn") : states.map(statusBadge)),
    h("p", { class: "numeric" }, plural(credits, "credit")));
}
