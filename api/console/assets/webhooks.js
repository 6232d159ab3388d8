// Deliveries of webhooks: what was sent, what came back, and sending one again. What came back is a stranger's text.

import { call, query } from "./api.js";
import { fill, h } from "./dom.js";
import { ago, duration, plural, time } from "./format.js";
import { badge, button, card, code, empty, field, head, link, notice, pages, say, select, statusBadge, table, when } from "./ui.js";

export const title = "Webhooks";
const STATUSES = [["", "Every status"], ["pending", "Waiting"], ["delivered", "Delivered"], ["dead", "Given up"]];
const COLUMNS = ["Status", "Event", "Address", { label: "Attempts", numeric: true }, "Made"];
const VERIFY = `from standardwebhooks import Webhook

# The secret: extract-image webhooks secret show ACCOUNT
Webhook("whsec_...").verify(request_body, request_headers)  # raises if the signature is wrong`;

export const show = (main, { rest, signal }) => (rest[0] ? one(main, rest[0], signal) : all(main, signal));

function all(main, signal) {
  let status = "";
  const deliveries = pages("Deliveries", COLUMNS, {
    read: async (cursor) => {
      const page = await call("api/v1/deliveries" + query({ limit: 50, cursor, status }), { signal });
      return { entries: page.deliveries, next: page.nextCursor };
    },
    cells: (row) => [statusBadge(row.status), link(row.event, `#/webhooks/${encodeURIComponent(row.id)}`), h("span.break", row.url), row.attempts.length, when(row.createdAt)],
    none: () => status ? empty("No delivery has this status", "Choose another one.")
      : empty("No webhooks yet", "A job that is sent with `webhookUrl` tells that address when it ends. Each delivery appears here, with what came back."),
  });
  fill(main, head(title, "", field("Status", select(STATUSES, "", (value) => ((status = value), deliveries.load())))), h("div.stack", deliveries.element, verify()));
  return deliveries.load();
}

async function one(main, id, signal) {
  const path = `api/v1/deliveries/${encodeURIComponent(id)}`;
  async function draw() {
    const found = await call(path, { signal });
    const again = button("Redeliver", async () => {
      await call(`${path}/redeliver`, { method: "POST", signal });
      say("It is sent again. The same id and the same bytes, signed anew.");
      await draw();
      main.querySelector("h1").focus();
    }, { kind: "primary", why: found.body === null && GONE });
    const attempts = found.attempts.map((made, at) => [
      at + 1, time(made.at), made.status ? badge(made.status, made.status < 300 ? "good" : "bad") : badge("no answer", "bad"),
      made.ms < 1000 ? `${made.ms} ms` : duration(made.ms / 1000), h("span.break", made.error),
    ]);
    fill(main,
      h("p", link("← Webhooks", "#/webhooks")),
      head([found.event, " ", statusBadge(found.status)], found.url, button("Look again", draw), again),
      h("div.stack",
        found.nextAttemptAt && notice("warn", `Next attempt ${ago(found.nextAttemptAt)}, at ${time(found.nextAttemptAt)}.`),
        card(plural(attempts.length, "attempt"), attempts.length ? table("Attempts", ["No.", "When", "Status", "Took", "What went wrong"], attempts) : h("p.muted", "It was not tried yet.")),
        h("div.columns",
          card("What was sent", h("p", "About ", link("this job", `#/run/${encodeURIComponent(found.job)}`), ", id ", h("code.break", found.id)), found.body ? code(pretty(found.body), "The body") : h("p.muted", GONE)),
          card("What came back", response(found.attempts.at(-1)))),
        verify()));
  }
  await draw();
}

const GONE = "What this webhook said is gone: its job was deleted, or its results have expired.";

function response(last) {
  if (!last) return h("p.muted", "Nothing yet.");
  return [h("p", last.status ? `Status ${last.status}, ${time(last.at)}` : `No answer: ${last.error}`), last.response ? code(last.response, "The answer") : h("p.muted", "The answer had no text, or it was not kept.")];
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const verify = () => h("details.card", h("summary", "How to verify a signature"),
  h("p", "Each request carries `webhook-id`, `webhook-timestamp` and `webhook-signature`. The signature is HMAC-SHA256 of id, timestamp and body, joined by full stops, as Standard Webhooks says. Verify it before you read the body, over the bytes as they came, and take each id once."),
  code(VERIFY, "The example"));
