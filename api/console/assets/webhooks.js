// Deliveries of webhooks: what was sent, what came back, and sending one again. What came back is a stranger's text.

import { call, query } from "./api.js";
import { fill, h } from "./dom.js";
import { ago, duration, plural, time } from "./format.js";
import { button, card, code, empty, field, link, notice, say, select, statusBadge, table } from "./ui.js";

export const title = "Webhooks";
const STATES = [["", "Every state"], ["pending", "Waiting"], ["delivered", "Delivered"], ["dead", "Given up"]];
const VERIFY = `from standardwebhooks import Webhook

# The secret: extract-image webhooks secret show ACCOUNT
Webhook("whsec_...").verify(request_body, request_headers)  # raises if the signature is wrong`;

export const show = (main, { rest, signal }) => (rest[0] ? one(main, rest[0], signal) : list(main, signal));

async function list(main, signal) {
  let state = "";
  let rows = [];
  const shown = h("div", { class: "stack" });

  async function load(cursor = "") {
    const page = await call("api/v1/deliveries" + query({ limit: 50, cursor, state }), { signal });
    rows = cursor ? [...rows, ...page.deliveries] : page.deliveries;
    const cells = rows.map((row) => [statusBadge(row.status), link(row.event, `#/webhooks/${encodeURIComponent(row.id)}`), h("span", { class: "break" }, row.url), count(row), h("time", { datetime: row.createdAt, title: time(row.createdAt) }, ago(row.createdAt))]);
    fill(shown,
      rows.length ? table("Deliveries", ["State", "Event", "Address", { label: "Attempts", numeric: true }, "Made"], cells)
        : state ? empty("No delivery is in this state", "Choose another state.") : empty("No webhooks yet", "A job that is sent with `webhookUrl` tells that address when it ends. Each delivery appears here, with what came back."),
      page.nextCursor ? h("div", { class: "row centre" }, button("Load more", async () => (await load(page.nextCursor), shown.querySelector(".scroll").focus()))) : null);
  }

  fill(main, h("div", { class: "head" }, h("h1", {}, "Webhooks"), field("State", select(STATES, state, (value) => ((state = value), load())))), h("div", { class: "stack" }, shown, verify()));
  await load();
}

const count = (row) => String(Array.isArray(row.attempts) ? row.attempts.length : row.attempts ?? 0);

async function one(main, id, signal) {
  const path = `api/v1/deliveries/${encodeURIComponent(id)}`;
  async function draw() {
    const found = await call(path, { signal });
    const again = button("Redeliver", async () => {
      await call(`${path}/redeliver`, { method: "POST", signal });
      say("It is sent again. The same id and the same bytes, signed anew.");
      await draw();
      main.querySelector("h1").focus();
    }, { kind: "primary", why: found.body === null ? "What this webhook said is gone: its job was deleted, or its results have expired." : "" });
    const attempts = found.attempts.map((made, at) => [String(at + 1), time(made.at), made.status ? h("span", { class: `badge ${made.status < 300 ? "good" : "bad"}` }, String(made.status)) : h("span", { class: "badge bad" }, "no answer"), made.ms === undefined || made.ms === null ? "" : made.ms < 1000 ? `${made.ms} ms` : duration(made.ms / 1000), h("span", { class: "break" }, made.error ?? "")]);
    const last = found.attempts.at(-1);
    fill(main,
      h("p", {}, link("← Webhooks", "#/webhooks")),
      h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, found.event, " ", statusBadge(found.status)), h("p", { class: "muted break" }, found.url)), h("div", { class: "row" }, button("Look again", draw), again)),
      h("div", { class: "stack" },
        found.nextAttemptAt && found.status === "pending" ? notice("warn", `Next attempt ${ago(found.nextAttemptAt)}, at ${time(found.nextAttemptAt)}.`) : null,
        card(h("h2", {}, plural(found.attempts.length, "attempt")), attempts.length ? table("Attempts", ["No.", "When", "Status", "Took", "What went wrong"], attempts) : h("p", { class: "muted" }, "It was not tried yet.")),
        h("div", { class: "pair" },
          card(h("h2", {}, "What was sent"), found.job ? h("p", {}, "About ", link("this job", `#/run/${encodeURIComponent(found.job)}`), ", id ", h("code", { class: "break" }, found.id)) : null, typeof found.body === "string" ? code(pretty(found.body), "The body") : found.body ? code(JSON.stringify(found.body, null, 2), "The body") : h("p", { class: "muted" }, "It is gone: the job was deleted, or its results have expired.")),
          card(h("h2", {}, "What came back"), response(found, last))),
        verify()));
  }
  await draw();
}

function response(found, last) {
  const text = last?.response ?? last?.body ?? found.response ?? null;
  if (!last) return h("p", { class: "muted" }, "Nothing yet.");
  return [h("p", {}, last.status ? `Status ${last.status}, ${time(last.at)}` : `No answer: ${last.error ?? "the connection failed"}`), typeof text === "string" && text ? code(text, "The answer") : h("p", { class: "muted" }, "The answer had no text, or it was not kept.")];
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const verify = () => h("details", { class: "card" }, h("summary", {}, "How to verify a signature"),
  h("p", {}, "Each request carries `webhook-id`, `webhook-timestamp` and `webhook-signature`. The signature is HMAC-SHA256 of id, timestamp and body, joined by full stops, as Standard Webhooks says. Verify it before you read the body, over the bytes as they came, and take each id once."),
  code(VERIFY, "The example"));
