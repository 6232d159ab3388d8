// A run: one job, or the jobs of a batch as one. Its pictures are numbered through, from 0.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { original } from "./draft.js";
import { drawable } from "./pictures.js";
import { empty } from "./ui.js";

const PAGE = 500; // items of a request
const STREAMS = 3; // a browser opens six connections to a host, and the other requests need some of them
const LOOK_MS = 3000;
const MOST_KEPT = 300; // thumbnails

/** The run of an address: a job's id or `batch:ID`. Shows that there is none, and returns null, if the account has no such run. */
export async function open(main, id = "", signal = undefined) {
  try {
    const run = new Run(id, await jobsOf(id, signal));
    if (run.jobs.length) return run;
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  fill(main, h("h1", {}, "There is no such run"), empty("Nothing is here", "It was deleted, or it belongs to another account.", h("a", { class: "button primary", href: "#/jobs" }, "All jobs"), h("a", { class: "button", href: "#/new" }, "Read pictures")));
  return null;
}

async function jobsOf(id, signal) {
  if (!id.startsWith("batch:")) return [await api.call(`api/v1/jobs/${encodeURIComponent(id)}`, { signal })];
  const batch = id.slice(6);
  const found = [];
  for await (const page of api.pages("api/v1/jobs", "jobs", { batch, limit: 100 }, signal)) found.push(...page.filter((job) => job.batch === batch));
  return found.reverse(); // the service shows the newest first
}

export class Run {
  constructor(id, jobs) {
    this.id = id;
    this.jobs = jobs;
    this.items = []; // by number; a place is empty until its page has been read
    this.pages = jobs.map(() => [{ cursor: "", settled: false }]);
    this.offsets = [];
    this.total = 0;
    for (const job of jobs) {
      this.offsets.push(this.total);
      this.total += job.counts.total;
    }
  }

  get href() { return encodeURIComponent(this.id); }
  get ended() { return this.jobs.every((job) => job.finishedAt); }
  get name() { return this.jobs.find((job) => job.name)?.name ?? ""; }
  get succeeded() { return this.sum((job) => job.counts.succeeded); }
  get failed() { return this.sum((job) => job.counts.failed); }
  get warnings() { return [...new Set(this.jobs.flatMap((job) => job.warnings))]; }
  sum(of) { return this.jobs.reduce((all, job) => all + (of(job) ?? 0), 0); }

  get status() {
    if (!this.ended) return this.jobs.every((job) => job.status === "queued") ? "queued" : "running";
    const seen = new Set(this.jobs.map((job) => job.status));
    if (seen.size === 1) return this.jobs[0].status;
    return seen.has("cancelled") ? "cancelled" : "partial";
  }

  /** Which job has the picture, and at which index. */
  place(n) {
    let at = this.offsets.length - 1;
    while (at > 0 && this.offsets[at] > n) at--;
    return { at, job: this.jobs[at], index: n - this.offsets[at] };
  }

  nameOf(n) {
    const item = this.items[n];
    return item?.customId || item?.source || this.original(n)?.name || `Picture ${n + 1}`;
  }

  /** The picture as this tab has it, or undefined. */
  original(n) {
    const { job, index } = this.place(n);
    return original(job.id, index);
  }

  update(job) {
    const at = this.jobs.findIndex((one) => one.id === job.id);
    if (at < 0) return;
    // A retry begins a new round: its pictures can change again.
    if (this.jobs[at].finishedAt && !job.finishedAt) this.unsettle(at);
    this.jobs[at] = job;
  }

  unsettle(at) {
    for (const page of this.pages[at]) page.settled = false;
  }

  /** Reads the items that may have changed, a page at a time. `seen(first, count)` is called after each page. */
  async read(signal, seen = () => {}) {
    for (const [at, job] of this.jobs.entries()) {
      for (let place = 0; place < this.pages[at].length; place++) {
        if (this.pages[at][place].settled) continue;
        await this.readPage(at, place, job, signal, seen);
      }
    }
  }

  /** Reads the page on which this picture stands. */
  async readAgain(n, signal) {
    const { at, job, index } = this.place(n);
    await this.readPage(at, Math.floor(index / PAGE), job, signal, () => {});
  }

  async readPage(at, place, job, signal, seen) {
    const pages = this.pages[at];
    const answer = await patiently(() => api.call(`api/v1/jobs/${job.id}/items${api.query({ limit: PAGE, cursor: pages[place].cursor })}`, { signal }), signal);
    for (const item of answer.items) this.items[this.offsets[at] + item.index] = item;
    pages[place].settled = answer.items.every((item) => item.status === "succeeded" || item.status === "failed");
    if (answer.nextCursor && !pages[place + 1]) pages.push({ cursor: answer.nextCursor, settled: false });
    if (answer.items.length) seen(this.offsets[at] + answer.items[0].index, answer.items.length);
  }

  /** Calls `changed` whenever a job has changed, until all have ended. */
  async watch(changed, signal) {
    const waiting = this.jobs.filter((job) => !job.finishedAt).map((job) => job.id);
    const all = waiting.length;
    const seen = (job) => (this.update(job), changed());
    const stream = async () => {
      for (let id = waiting.shift(); id; id = waiting.shift()) await api.follow(id, seen, signal);
    };
    const look = async () => {
      while (waiting.length && !signal.aborted) {
        await api.pause(LOOK_MS, signal);
        for (const job of await jobsOf(this.id, signal).catch(() => [])) if (waiting.includes(job.id)) seen(job);
      }
    };
    await Promise.all([...Array.from({ length: Math.min(STREAMS, all) }, stream), all > STREAMS ? look() : null]);
  }

  /** A picture to show: a Blob. Raises Refused with `inputs_gone` if neither the tab nor the service has it. */
  async picture(n, width, signal) {
    const mine = this.original(n);
    if (mine?.file) {
      if (drawable(mine)) return mine.file;
      return api.blob(`api/v1/preview?width=${width}`, { method: "POST", body: mine.file, signal, more: { "Content-Type": "application/octet-stream" } });
    }
    const { job, index } = this.place(n);
    return patiently(() => api.blob(`api/v1/jobs/${job.id}/items/${index}/image?width=${width}`, { signal }), signal);
  }

  /** Whether the service may still have the picture. */
  keeps(n) {
    const { job } = this.place(n);
    return !job.finishedAt || Boolean(job.inputsExpireAt && new Date(job.inputsExpireAt) > Date.now());
  }
}

/** Calls `act`, again after the time that the service names if it is busy. */
async function patiently(act, signal) {
  for (let left = 5; ; left--) {
    try {
      return await act();
    } catch (error) {
      if (error.status !== 429 || !left) throw error;
      await api.pause(1000 * Math.min(error.retryAfter || 2, 30), signal);
    }
  }
}

/** Thumbnails that the service keeps, one request at a time, what was seen last first. `put(place, n)` fills a tile. */
export function keptThumbs(run, signal) {
  const kept = new Map();
  const wanted = [];
  const gone = new Set(); // jobs whose pictures are no longer there
  let busy = false;
  signal.addEventListener("abort", () => kept.forEach((address) => URL.revokeObjectURL(address)));
  async function next() {
    if (busy) return;
    busy = true;
    while (wanted.length && !signal.aborted) {
      const [place, n] = wanted.pop();
      const { job } = run.place(n);
      if (!place.isConnected || gone.has(job.id)) continue;
      try {
        const address = URL.createObjectURL(await run.picture(n, 160, signal));
        kept.set(n, address);
        if (kept.size > MOST_KEPT) {
          const [oldest, old] = kept.entries().next().value;
          kept.delete(oldest);
          URL.revokeObjectURL(old);
        }
        fill(place, h("img", { src: address, alt: "" }));
        await api.pause(120, signal);
      } catch (error) {
        if (error.code === "inputs_gone") gone.add(job.id);
      }
    }
    busy = false;
  }
  return (place, n) => {
    if (kept.has(n)) return void fill(place, h("img", { src: kept.get(n), alt: "" }));
    if (!run.keeps(n) || run.items[n]?.source?.startsWith("http")) return;
    wanted.push([place, n]);
    if (wanted.length > 200) wanted.shift();
    requestAnimationFrame(next);
  };
}
