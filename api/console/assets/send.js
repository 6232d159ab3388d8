// Sends the draft: what it costs first, then one job for each part of the pictures. What breaks is sent again without a double charge.

import * as api from "./api.js";
import { ask, badge, bar, button, complain, fill, go, h, money, muted, notice, number, percent, plural, row, screen } from "./build.js";
import { draft, keep, remember, usable } from "./draft.js";
import { parts, shortName } from "./pictures.js";
import { modelOf } from "./settings.js";

const TRIES = 4; // of one request, before the person is asked

/** An unguessable name. `crypto.randomUUID` is missing where the page came without TLS. */
const random = (prefix) => prefix + crypto.getRandomValues(new BigUint64Array(2)).join("");

/** The fields of a request. What the model can't do is left out. `over`: what differs from the draft. */
export function fieldsFor(able, over = {}) {
  const set = { ...draft, ...over };
  const { can } = modelOf(able, set.model);
  const made = { prompt: set.prompt.trim() || "Read what this picture shows.", granularity: "perImage" };
  if (can.schema !== false && Object.keys(set.schema?.properties ?? set.schema ?? {}).length) made.schema = set.schema;
  if (set.model) made.model = set.model;
  for (const [name, values] of Object.entries({ detail: can.detail, thinking: can.thinking, tier: can.tiers })) if (values?.includes(set[name]) && set[name] !== "standard") made[name] = set[name];
  if (set.evidence) Object.assign(made, { evidence: true, reviewWhen: ["unsupported", "lowConfidence", "failed"] });
  if (set.maxMoney > 0) made.maxMoney = Number(set.maxMoney);
  return made;
}

const post = (path, images, fields, options) => api.call(`api/v1/${path}`, { method: "POST", json: { inputMethod: "url", images, ...fields }, ...options });

/** What so many pictures cost with these fields. No picture is needed for that, so none is sent. */
export function estimate(count, { maxMoney, ...fields }, signal) { // the limit is for the run, and would refuse to say the price
  return post("extract-image/estimate", Array.from({ length: count }, (_, index) => `https://pictures.example/${index}.jpg`), fields, { signal });
}

/** Sends pictures of one kind as one job, and returns it. `key`: the same for each attempt. */
function submit(pictures, fields, { key = random("try-"), progress, signal }) {
  const more = { "Idempotency-Key": key, "Request-Source": "console" };
  if (pictures[0].url) return post("jobs", pictures.map((one) => one.url), fields, { signal, more });
  const form = new FormData();
  for (const [name, value] of Object.entries({ ...fields, ...(draft.keepInputsSeconds > 0 && { keepInputsSeconds: draft.keepInputsSeconds }) })) form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  for (const one of pictures) form.append("images", one.file, shortName(one));
  return api.upload("api/v1/jobs", form, { progress, signal, more });
}

/** Reads a few pictures at once, in the tier standard, because a person waits: `{job, items}`. `seen` gets the job whenever it changes. When `signal` ends, the job is cancelled. */
export async function readNow(pictures, { tier, ...fields }, { signal = new AbortController().signal, seen = () => {} } = {}) {
  const { id } = await submit(pictures, fields, { signal });
  const path = `api/v1/jobs/${id}`;
  signal.addEventListener("abort", () => api.call(`${path}/cancel`, { method: "POST" }).catch(() => {}));
  await api.follow(id, seen, signal);
  const [job, { items }] = await Promise.all([api.call(path), api.call(`${path}/items`)]);
  return { job, items };
}

let plan = null; // what is being sent; it stays when sending stops, so that only the rest is sent

function planned(able) {
  const fields = fieldsFor(able);
  const same = JSON.stringify([usable().map((one) => one.id), fields, draft.name, draft.keepInputsSeconds]);
  if (plan?.same === same && plan.parts.some((part) => !part.job)) return plan;
  const made = parts(able.limits);
  if (made.length > 1) fields.batch = random("batch_");
  if (draft.name.trim()) fields.name = draft.name.trim();
  return (plan = { same, fields, parts: made.map((part) => ({ ...part, key: random("console-"), done: 0 })) });
}

const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);

/** Shows what the run costs, asks, sends, and goes to the run. */
export async function startRun(main, able) {
  keep();
  const wanted = planned(able);
  if (await confirmed(wanted)) await send(main, wanted);
}

async function confirmed({ fields: { batch, name, ...fields }, parts }) {
  const pictures = plural(sum(parts, (part) => part.pictures.length), "picture");
  const [{ balance }, ...costs] = await Promise.all([api.call("api/v1/usage?limit=1"), ...parts.map((part) => estimate(part.pictures.length, fields))]);
  const [credits, calls, read, written, price] = ["credits", "modelCalls", "inputTokens", "outputTokens", "money"].map((of) => sum(costs, (cost) => cost[of]));
  const lack = credits - balance.available;
  const tier = fields.tier === "economy" ? "standard" : "economy";
  const other = sum(costs, (cost) => cost.moneyByTier[tier] ?? 0);
  const facts = {
    Jobs: parts.length > 1 ? `${number(parts.length)}, shown as one batch` : "1", "Model calls": number(calls), Tokens: `about ${number(read)} in, ${number(written)} out at most`,
    Credits: `${number(credits)} of your ${number(balance.available)}`, "Money for the model": price ? `about ${money(price)}${other ? `, or ${money(other)} in the tier ${tier}` : ""}` : "none known", Limit: fields.maxMoney ? money(fields.maxMoney) : "none",
  };
  const content = [h("dl.facts", Object.entries(facts).map(([label, value]) => [h("dt", label), h("dd", value)])),
    lack > 0 && notice("bad", `You lack ${number(lack)} credits. Remove pictures, or ask whoever runs the service for more.`),
    price > fields.maxMoney && notice("warn", "This is over your limit: the service may refuse the run, or leave pictures out."),
    h("p.hint", "Credits are charged when the run ends, and only for pictures that were read.")];
  return ask(`Read ${pictures}?`, content, lack > 0 ? [["", "Close"]] : [["", "Not yet"], ["yes", `Read ${pictures} for ${plural(credits, "credit")}`, "primary"]]);
}

async function send(main, wanted) {
  const { fields, parts } = wanted;
  const many = parts.length > 1;
  const total = sum(parts, (part) => part.pictures.length);
  const stop = new AbortController();
  const state = h("div.stack");
  const said = h("p", { role: "status" });
  const acts = row(button("Stop sending", () => stop.abort()));
  const place = h("section.stack", state, said, acts);
  const leaving = (event) => event.preventDefault();
  addEventListener("beforeunload", leaving);
  screen(main, "run", "Sending the pictures", "Keep this tab open until they are sent.", null, place);
  main.focus();
  const paint = () => {
    const done = sum(parts, (part) => part.pictures.length * (part.job ? 1 : part.done));
    fill(state, bar([[Math.round(done), "busy", "sent"]], total), muted(`${percent(done / total)} of ${plural(total, "picture")}`),
      many && h("ul.plain", parts.map((part, at) => h("li", `Job ${at + 1}: ${plural(part.pictures.length, "picture")} `, badge(...(part.job ? ["sent", "good"] : part.error ? [part.error, "bad"] : [part.done ? percent(part.done) : "waiting", "busy"]))))));
  };
  const run = () => "#/run/" + encodeURIComponent(many ? `batch:${fields.batch}` : parts[0].job);
  try {
    for (const part of parts.filter((part) => !part.job)) {
      part.error = "";
      paint();
      // The limit holds for all jobs together, so each gets its share.
      const asked = { ...fields, ...(fields.maxMoney && { maxMoney: (fields.maxMoney * part.pictures.length) / total }) };
      const progress = (of) => ((part.done = of), paint());
      try {
        part.job = (await patiently(() => submit(part.pictures, asked, { key: part.key, signal: stop.signal, progress }), (text) => fill(said, text), stop.signal)).id;
      } catch (error) {
        part.error = stop.signal.aborted ? "stopped" : error.message;
        part.done = 0;
        throw error;
      }
      remember(part.job, part.pictures);
      fill(said);
    }
  } catch (error) {
    paint();
    if (!place.isConnected) return complain(error);
    const sent = parts.filter((part) => part.job).length;
    const stopped = stop.signal.aborted;
    const again = button(sent ? "Send the rest" : "Send again", () => void send(main, wanted), { kind: "primary" });
    acts.before(notice(stopped ? "warn" : "bad", h("p", stopped ? "You stopped the sending." : error.message), sent > 0 && h("p", `${sent} of ${plural(parts.length, "job")} are sent already, and are not sent again.`)));
    fill(acts, again, go("Back to the fields", "#/fields"), sent > 0 && go("See what runs", run()));
    return again.focus();
  } finally {
    removeEventListener("beforeunload", leaving);
  }
  plan = null;
  if (place.isConnected) location.hash = run();
}

/** Calls `act` again when the connection broke or the service asks to wait. `tell` gets what the person may read meanwhile. */
export async function patiently(act, tell = () => {}, signal = undefined) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await act();
    } catch (error) {
      if (![0, 429, 502, 503, 504].includes(error.status) || attempt === TRIES) throw error;
      const wait = Math.min(error.retryAfter || 2 ** attempt, 60);
      tell(`${error.message} Trying again in ${wait} s.`);
      await api.pause(wait * 1000, signal);
    }
  }
}
