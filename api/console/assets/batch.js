// A run: one job, or the jobs of a batch as one. Its pictures are numbered through, from 0.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { original } from "./draft.js";
import { call } from "./json.js";
import { go } from "./parts.js";
import { drawable } from "./pictures.js";
import { empty, head, link } from "./ui.js";

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
  fill(main, head("There is no such run"), empty("Nothing is here", "It was deleted, or it belongs to another account.", link("All jobs", "#/jobs", { class: "button primary" })));
  return null;
}

/** What stands where a run must have ended first. */
export const unended = (run) => empty("The run still works", "Its records are here when it has ended.", go("run", run, "See the run"));

async function jobsOf(id, signal) {
  if (!id.startsWith("batch:")) return [await api.call(`api/v1/jobs/${encodeURIComponent(id)}`, { signal })];
  const batch = id.slice(6);
  const found = [];
  for await (const page of api.pages("api/v1/jobs", "jobs", { batch, limit: 100 }, signal)) found.push(...page);
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
  get done() { return this.succeeded + this.failed; }
  get warnings() { return [...new Set(this.jobs.flatMap((job) => job.warnings))]; }
  sum(of) { return this.jobs.reduce((all, job) => all + (of(job) ?? 0), 0); }

  get status() {
    if (!this.ended) return this.jobs.every((job) => job.status === "queued") ? "queued" : "running";
    const seen = new Set(this.jobs.map((job) => job.status));
    if (seen.size === 1) return this.jobs[0].status;
    return seen.has("cancelled") ? "cancelled" : "partial";
  }

  /** What each job was asked. */
  requests(signal) {
    return Promise.all(this.jobs.map((job) => call(`api/v1/jobs/${job.id}/request`, { signal })));
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
  async read(signal, seen) {
    for (const at of this.jobs.keys()) for (let place = 0; place < this.pages[at].length; place++) if (!this.pages[at][place].settled) await this.readPage(at, place, signal, seen);
  }

  /** Reads the page on which this picture stands. */
  async readAgain(n, signal) {
    const { at, index } = this.place(n);
    await this.readPage(at, Math.floor(index / PAGE), signal);
  }

  async readPage(at, place, signal, seen = () => {}) {
    const pages = this.pages[at];
    const answer = await patiently(() => call(`api/v1/jobs/${this.jobs[at].id}/items${api.query({ limit: PAGE, cursor: pages[place].cursor })}`, { signal }), signal);
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
    await Promise.all([...Array.from({ length: Math.min(STREAMS, all) }, stream), all > STREAMS && look()]);
  }

  /** A picture to show: a Blob, with `across`: the original's width in pixels, if that is another. Raises Refused with `inputs_gone` if neither the tab nor the service has it. */
  async picture(n, width, signal) {
    const mine = this.original(n);
    if (mine?.file && drawable(mine)) return mine.file;
    const { job, index } = this.place(n);
    const path = mine?.file ? "preview" : `jobs/${job.id}/items/${index}/image`;
    const sent = mine?.file ? { method: "POST", body: mine.file, signal } : { signal };
    return patiently(() => drawn(`api/v1/${path}?width=${width}`, sent), signal);
  }

  /** Whether the service may still have the picture. */
  keeps(n) {
    const { job } = this.place(n);
    return !job.finishedAt || Boolean(job.inputsExpireAt && new Date(job.inputsExpireAt) > Date.now());
  }
}

/** A picture that the service draws. */
async function drawn(path, options) {
  const answer = await fetch(api.address(path), { ...options, headers: { Authorization: `Bearer ${api.key()}` } });
  if (answer.ok) return Object.assign(await answer.blob(), { across: Number(answer.headers.get("X-Image-Width")) });
  throw new api.Refused(answer.status, answer.headers.get("X-Error-Code"), (await answer.json()).error, Number(answer.headers.get("Retry-After")));
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
  const show = (place, n) => void fill(place, h("img", { src: kept.get(n), alt: "" }));
  async function next() {
    if (busy) return;
    busy = true;
    while (wanted.length && !signal.aborted) {
      const [place, n] = wanted.pop();
      const { job } = run.place(n);
      if (!place.isConnected || gone.has(job.id)) continue;
      try {
        kept.set(n, URL.createObjectURL(await run.picture(n, 160, signal)));
        const [oldest, old] = kept.entries().next().value;
        if (kept.size > MOST_KEPT && kept.delete(oldest)) URL.revokeObjectURL(old);
        show(place, n);
        await api.pause(120, signal);
      } catch (error) {
        if (error.code === "inputs_gone") gone.add(job.id);
      }
    }
    busy = false;
  }
  return (place, n) => {
    if (kept.has(n)) return show(place, n);
    if (!run.keeps(n) || run.items[n]?.source?.startsWith("http")) return;
    wanted.push([place, n]);
    if (wanted.length > 200) wanted.shift();
    requestAnimationFrame(next);
  };
}
