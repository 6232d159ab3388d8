// The public API. Nothing else is asked for anything.

const ROOT = new URL("../../", import.meta.url);
const KEY = "extract-image.key";

/** What is said when nothing answers. */
export const AWAY = "The service can't be reached. Check that it runs, and your connection to it.";

/** The service's refusal: `status`, the stable `code`, and a text that says how to mend it. */
export class Refused extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

let onSignedOut = () => {};
/** `act` is called when the service no longer takes the key. */
export const whenSignedOut = (act) => (onSignedOut = act);

// The key stays in this tab: another tab, a restart of the browser and other sites don't see it.
export const key = () => sessionStorage.getItem(KEY) ?? "";
export const keepKey = (text) => sessionStorage.setItem(KEY, text);
export const dropKey = () => sessionStorage.removeItem(KEY);
export const address = (path) => new URL(path.replace(/^\//, ""), ROOT).href;
const headers = (more) => ({ Authorization: `Bearer ${key()}`, ...more });

async function refusal(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // A proxy's own page is no JSON; the status says enough.
  }
  const code = body.code ?? answer.headers.get("X-Error-Code") ?? `http_${answer.status}`;
  if (answer.status === 401) onSignedOut();
  return new Refused(answer.status, code, body.error ?? `The service answered with ${answer.status}.`, Number(answer.headers.get("Retry-After")) || 0);
}

/** The answer of the service. Raises Refused, also if it can't be reached (status 0). */
async function ask(path, { method = "GET", json, body, signal, more } = {}) {
  let answer;
  try {
    answer = await fetch(address(path), {
      method, signal, cache: "no-store", credentials: "omit",
      headers: headers({ ...(json && { "Content-Type": "application/json" }), ...more }),
      body: json ? JSON.stringify(json) : body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "unreachable", AWAY);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** The JSON of an answer, null if it has no content. `options`: method, json (a body), signal, more (headers). */
export async function call(path, options) {
  const answer = await ask(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** The bytes of an answer. */
export const blob = async (path, options) => (await ask(path, options)).blob();

/** A query from the values that are not empty, as in `?limit=5`. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => (value ?? "") !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** Every entry of a list that has pages, one page after the other. */
export async function* pages(path, name, values, signal) {
  for (let cursor = ""; cursor !== null; ) {
    const page = await call(path + query({ ...values, cursor }), { signal });
    yield page[name];
    cursor = page.nextCursor;
  }
}

/** Sends a form, and tells `progress` of the part that has arrived (0 to 1). fetch can't tell it, so this is XMLHttpRequest. */
export function upload(path, form, { progress = () => {}, signal, more = {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    for (const [name, value] of Object.entries(headers(more))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new Refused(0, "unreachable", "The connection broke while the pictures were sent. Nothing was charged; send again."));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    request.onload = async () => {
      const answer = new Response(request.response, { status: request.status, headers: { "Retry-After": request.getResponseHeader("Retry-After") ?? "" } });
      if (request.status >= 200 && request.status < 300) resolve(await answer.json());
      else reject(await refusal(answer));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** Calls `seen` with the job at once and whenever it changes, until it has ended. Connects again when a connection breaks. */
export async function follow(job, seen, signal) {
  for (let last = "", wait = 1000; !signal.aborted; ) {
    try {
      const answer = await ask(`api/v1/jobs/${job}/events`, { signal, more: last ? { "Last-Event-ID": last } : {} });
      if (answer.status === 204) return;
      for await (const event of events(answer.body)) {
        last = event.id || last;
        wait = 1000;
        if (event.data) {
          const state = JSON.parse(event.data);
          seen(state);
          if (state.finishedAt) return;
        }
      }
    } catch (error) {
      if (signal.aborted || error.status === 401 || error.status === 404) throw error;
      wait = Math.min(wait * 2, 15000);
      // Without a place for a stream the job is looked at instead.
      const state = await call(`api/v1/jobs/${job}`, { signal }).catch(() => null);
      if (state) seen(state);
      if (state?.finishedAt) return;
    }
    await pause(wait, signal);
  }
}

export const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => (clearTimeout(timer), reject(new DOMException("stopped", "AbortError"))), { once: true });
});

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = { id: "", data: "" };
      for (const line of part.split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      yield event;
    }
  }
}
