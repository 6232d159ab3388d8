// Sends the draft: what it costs first, then one job for each part of the pictures. What breaks is sent again without a double charge.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { draft, keep, remember, usable } from "./draft.js";
import { money, number, percent, plural } from "./format.js";
import { parts, shortName } from "./pictures.js";
import { stepper } from "./stepper.js";
import { ask, badge, bar, button, complain, notice } from "./ui.js";

const TRIES = 4; // of one part, before the person is asked

/** An unguessable name. `crypto.randomUUID` is missing where the page came without TLS. */
export const unguessable = (prefix) => prefix + [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** What the settings ask of a model that can do `can`. `over`: what differs from the draft. */
export function fieldsFor(able, over = {}) {
  const set = { ...draft, ...over };
  const model = able.models.find((one) => one.name === set.model) ?? able.models.find((one) => one.default) ?? able.models[0] ?? {};
  const can = model.can ?? {};
  const schema = can.schema === false ? null : set.schema;
  const made = { prompt: set.prompt.trim() || "Read what this picture shows.", granularity: "perImage" };
  if (schema && Object.keys(schema.properties ?? schema).length) made.schema = schema;
  if (set.model) made.model = set.model;
  if (can.detail?.includes(set.detail)) made.detail = set.detail;
  if (can.thinking?.includes(set.thinking)) made.thinking = set.thinking;
  if (set.tier !== "standard" && can.tiers?.includes(set.tier)) made.tier = set.tier;
  if (Number(set.maxMoney) > 0) made.maxMoney = Number(set.maxMoney);
  return made;
}

/** What so many pictures cost with these fields. No picture is needed for that, so none is sent. */
export function estimate(count, fields, signal) {
  const images = Array.from({ length: count }, (_, index) => `https://pictures.example/${index}.jpg`);
  const { maxMoney, ...rest } = fields; // the limit is for the run, and would refuse to say the price
  return api.call("api/v1/extract-image/estimate", { method: "POST", json: { inputMethod: "url", images, ...rest }, signal });
}

/** Sends pictures of one kind as one job, and returns it. `key`: the same for each attempt. */
export function submit(pictures, fields, { key, progress, signal } = {}) {
  const more = { "Idempotency-Key": key ?? unguessable("try-"), "Request-Source": "console" };
  if (pictures[0].url) return api.call("api/v1/jobs", { method: "POST", json: { inputMethod: "url", images: pictures.map((one) => one.url), ...fields }, signal, more });
  const form = new FormData();
  for (const [name, value] of Object.entries({ ...fields, keepInputsSeconds: draft.keepInputsSeconds || undefined })) if (value !== undefined) form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  for (const one of pictures) form.append("images", one.file, shortName(one));
  return api.upload("api/v1/jobs", form, { progress, signal, more });
}

let plan = null; // what is being sent; it stays when sending stops, so that only the rest is sent

function planned(able) {
  const made = parts(able.limits);
  const fields = fieldsFor(able);
  const same = JSON.stringify([usable().map((one) => one.id), fields, draft.name, draft.keepInputsSeconds]);
  if (plan?.same === same && plan.parts.some((part) => !part.job)) return plan;
  if (made.length > 1) fields.batch = unguessable("batch_");
  if (draft.name.trim()) fields.name = draft.name.trim();
  return (plan = { same, fields, parts: made.map((part) => ({ ...part, key: unguessable("console-"), job: "", done: 0, error: "" })) });
}

/** Shows what the run costs, asks, sends, and goes to the run. */
export async function startRun(main, able) {
  keep();
  const count = usable().length;
  if (!count) throw new Error("There is no picture to send. Add some first.");
  const wanted = planned(able);
  if (!(await confirmed(wanted, count))) return;
  await send(main, able, wanted);
}

async function confirmed(wanted, count) {
  const { batch, name, ...fields } = wanted.fields;
  const sizes = wanted.parts.map((part) => part.pictures.length);
  const [usage, ...costs] = await Promise.all([api.call("api/v1/usage?limit=1"), ...sizes.map((size) => estimate(size, fields))]);
  const sum = (of) => costs.reduce((all, cost) => all + cost[of], 0);
  const left = usage.balance.available;
  const lines = [["Pictures", number(count)], ["Jobs", sizes.length > 1 ? `${number(sizes.length)}, shown as one batch` : "1"], ["Model calls", number(sum("modelCalls"))], ["Tokens", `about ${number(sum("inputTokens"))} in, ${number(sum("outputTokens"))} out at most`],
    ["Credits", `${number(sum("credits"))} of your ${number(left)}`], ["Money for the model", sum("money") ? `about ${money(sum("money"))}` : "none known"], ["Limit", draft.maxMoney ? money(Number(draft.maxMoney)) : "none"]];
  const short = sum("credits") > left;
  const over = draft.maxMoney && sum("money") > Number(draft.maxMoney);
  const content = [h("dl", { class: "facts" }, lines.map(([label, value]) => [h("dt", {}, label), h("dd", {}, value)])),
    short ? notice("bad", `You lack ${number(sum("credits") - left)} credits. Remove pictures, or ask whoever runs the service for more.`) : null,
    over ? notice("warn", "The estimate is over your limit: the service may refuse the run, or leave pictures out.") : null,
    h("p", { class: "hint" }, "Credits are charged when the run ends, and only for pictures that were read.")];
  const yes = ["yes", `Read ${plural(count, "picture")} for ${plural(sum("credits"), "credit")}`, "primary"];
  return (await ask(`Read ${plural(count, "picture")}?`, content, short ? [["", "Close"]] : [["", "Not yet"], yes])) === "yes";
}

async function send(main, able, wanted) {
  const stop = new AbortController();
  const state = h("div", { class: "stack" });
  const said = h("p", { role: "status" });
  const heading = h("h1", { tabindex: "-1" }, "Sending the pictures");
  const screen = h("section", { class: "stack" }, stepper("run"), heading, said, state);
  const leaving = (event) => event.preventDefault();
  addEventListener("beforeunload", leaving);
  fill(main, screen);
  heading.focus();
  const total = wanted.parts.reduce((sum, part) => sum + part.pictures.length, 0);
  const paint = () => {
    const done = wanted.parts.reduce((sum, part) => sum + part.pictures.length * (part.job ? 1 : part.done), 0);
    fill(state, bar([[Math.round(done), "busy", "sent"]], total), h("p", { class: "muted" }, `${percent(done / total)} of ${plural(total, "picture")}`),
      wanted.parts.length > 1 ? h("ul", { class: "plain" }, wanted.parts.map((part, at) => h("li", {}, `Job ${at + 1}: ${plural(part.pictures.length, "picture")} `, part.job ? badge("sent", "good") : part.error ? badge(part.error, "bad") : badge(part.done ? percent(part.done) : "waiting", "busy")))) : null);
  };
  paint();
  const cancel = button("Stop sending", () => stop.abort());
  screen.append(h("div", { class: "row" }, cancel));
  try {
    for (const part of wanted.parts) {
      if (part.job) continue;
      part.error = "";
      const share = wanted.fields.maxMoney ? { maxMoney: (Number(draft.maxMoney) * part.pictures.length) / total } : {};
      const job = await patiently(() => submit(part.pictures, { ...wanted.fields, ...share }, { key: part.key, signal: stop.signal, progress: (of) => ((part.done = of), paint()) }), (text) => fill(said, text), stop.signal).catch((error) => {
        part.error = error.name === "AbortError" ? "stopped" : error.message;
        part.done = 0;
        throw error;
      });
      part.job = job.id;
      remember(job.id, part.pictures);
      fill(said, "");
      paint();
    }
  } catch (error) {
    paint();
    const sent = wanted.parts.filter((part) => part.job).length;
    const run = wanted.fields.batch ? `batch:${wanted.fields.batch}` : "";
    cancel.remove();
    const again = button(sent ? "Send the rest" : "Send again", () => void send(main, able, wanted).catch(complain), { kind: "primary" });
    screen.append(notice(error.name === "AbortError" ? "warn" : "bad", h("p", {}, error.name === "AbortError" ? "You stopped the sending." : error.message), sent ? h("p", {}, `${sent} of ${plural(wanted.parts.length, "job")} are sent and run already. They are not sent again.`) : null),
      h("div", { class: "row" }, again, h("a", { class: "button", href: "#/fields" }, "Back to the fields"), sent && run ? h("a", { class: "button", href: `#/run/${encodeURIComponent(run)}` }, "See what runs") : null));
    again.focus();
    return;
  } finally {
    removeEventListener("beforeunload", leaving);
  }
  const run = wanted.fields.batch ? `batch:${wanted.fields.batch}` : wanted.parts[0].job;
  plan = null;
  if (screen.isConnected) location.hash = `#/run/${encodeURIComponent(run)}`;
}

/** Calls `act` again when the connection broke or the service asks to wait. */
async function patiently(act, tell, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await act();
    } catch (error) {
      const passing = error.status === 0 || error.status === 429 || error.status === 502 || error.status === 503 || error.status === 504;
      if (!passing || attempt === TRIES) throw error;
      const wait = Math.min(error.retryAfter || 2 ** attempt, 60);
      tell(`${error.message} Trying again in ${wait} s.`);
      await api.pause(wait * 1000, signal);
    }
  }
}
