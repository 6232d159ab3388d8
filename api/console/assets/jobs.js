// The account's jobs, the newest first. The jobs of one batch are one entry.

import { call, pause, query } from "./api.js";
import { fill, h } from "./dom.js";
import { number, percent, plural } from "./format.js";
import { bar, button, empty, field, head, link, notice, search, select, statusBadge, when } from "./ui.js";

export const title = "Jobs";
const STATUSES = "Queued Running Finalizing Succeeded Partial Failed Cancelled".split(" ").map((label) => [label.toLowerCase(), label]);
const PAGE = 50;
const LOOK = 3000; // milliseconds between two looks at jobs that run

export async function show(main, { signal }) {
  const wanted = {};
  let jobs = [];
  let cursor = null;
  let asked = new AbortController();
  signal.addEventListener("abort", () => asked.abort());
  const list = h("ul.entries", { "aria-label": "Jobs" });
  const counted = h("div.muted", { role: "status" });
  const more = h("div.row");
  const set = (name) => (value) => ((wanted[name] = value), load());
  const day = (label, name) => field(label, h("input", { type: "date", on: { change: (event) => set(name)(event.target.value) } }));
  const start = () => link("New job", "#/new", { class: "button primary" });
  fill(main, head(title, "", start()),
    h("div.filters", { role: "search" },
      field("Search", search("Name, id or batch", set("q"))),
      field("Status", select([["", "Every status"], ...STATUSES], "", set("status"))),
      day("From", "from"), day("To", "to")),
    h("div.stack", counted, list, more));

  const read = (part, signal) => call("api/v1/jobs" + query({ ...spoken(wanted), ...part }), { signal });

  async function load(further) {
    asked.abort();
    asked = new AbortController();
    const before = further ? jobs : [];
    try {
      const page = await read({ limit: PAGE, cursor: further && cursor }, asked.signal);
      const last = page.jobs.at(-1);
      // A batch on which the page ends is read whole, because its entry adds up all of its jobs.
      const rest = page.nextCursor && last.batch ? (await read({ limit: 100, batch: last.batch }, asked.signal)).jobs : [];
      jobs = [...new Map([...before, ...page.jobs, ...rest].map((job) => [job.id, job])).values()];
      cursor = page.nextCursor;
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(list);
      fill(more);
      return fill(counted, notice("bad", error.message, " ", button("Try again", () => load())));
    }
    draw();
    if (further) list.children[Math.min(before.length, list.children.length - 1)]?.querySelector("a").focus();
  }

  function draw() {
    const entries = together(jobs);
    const focused = document.activeElement?.getAttribute("href");
    fill(list, entries.map(entry));
    list.hidden = !entries.length;
    if (focused) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    fill(counted, entries.length ? plural(entries.length, "entry", "entries") + (cursor ? ", and more" : "")
      : Object.values(wanted).some(Boolean) ? empty("No job is like that", "Change the search, the status or the dates.")
      : empty("No jobs yet", "Drop pictures, say what to read in them, and the job appears here.", start()));
    fill(more, cursor && button("Load more", () => load(true)));
  }

  await load();
  // What runs is looked at again while the page is seen: one request for all of the list.
  (async () => {
    for (let wait = LOOK; ; ) {
      await pause(wait, signal);
      if (document.hidden || jobs.every((job) => job.finishedAt)) continue;
      const mine = asked.signal;
      try {
        const found = await read({ limit: Math.min(100, Math.max(PAGE, jobs.length)) }, signal);
        if (mine.aborted) continue;
        const fresh = new Map(found.jobs.map((job) => [job.id, job]));
        const newest = jobs[0].createdAt;
        jobs = jobs.map((job) => {
          const now = fresh.get(job.id);
          fresh.delete(job.id);
          return now ?? job;
        });
        jobs.unshift(...[...fresh.values()].filter((job) => job.createdAt >= newest));
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
function spoken({ from, to, ...rest }) {
  const moment = (day, add) => {
    if (!day) return "";
    const [year, month, date] = day.split("-");
    return new Date(year, month - 1, +date + add).toISOString();
  };
  return { ...rest, from: moment(from, 0), to: moment(to, 1) };
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
  const sum = (value) => jobs.reduce((all, job) => all + value(job), 0);
  const [total, succeeded, failed] = ["total", "succeeded", "failed"].map((name) => sum((job) => job.counts[name]));
  const running = jobs.some((job) => !job.finishedAt);
  const progress = sum((job) => job.progress * job.counts.total);
  const [newest] = jobs;
  const parts = [[succeeded, "good", "done"], [failed, "bad", "failed"], [running ? progress - succeeded - failed : 0, "busy", "under way"]].filter(([count]) => count > 0);
  return h("li",
    h("div", link(newest.name || newest.metadata?.name || newest.id, `#/${running ? "run" : "review"}/${encodeURIComponent(id)}`),
      h("p.hint", plural(total, "picture"), jobs.length > 1 && `, a batch of ${plural(jobs.length, "job")}`, ", ", when(newest.createdAt))),
    h("div", bar(parts, total), h("p.hint", `${number(succeeded)} done`, failed > 0 && `, ${number(failed)} failed`, running && `, ${percent(progress / (total || 1))}`)),
    h("div.row", [...new Set(jobs.map((job) => job.status))].map(statusBadge)),
    h("p.numeric", plural(sum((job) => job.usage.credits), "credit")));
}
