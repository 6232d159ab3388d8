// What works, what is away, and what to do about it.

import { address, call, pause } from "./api.js";
import { fill, h } from "./dom.js";
import { duration, number, time } from "./format.js";
import { badge, button, card, code, head, link, list, notice, table } from "./ui.js";

export const title = "Health";
/** A check of /readyz → its name, what the part does, and what to do when it is away. */
const PARTS = {
  database: ["Database", "keeps jobs, records and credits", "Check that the server of DATABASE_URL runs and that its disk is not full. Nothing is lost: jobs go on when it is back."],
  redis: ["Redis", "wakes workers and counts rates", "Check that the server of REDIS_URL runs. Jobs that were accepted are in the database; they start late, but they start."],
  scratch: ["Store of images", "keeps pictures while a job needs them", "Check that SCRATCH_URL can be written: the disk's space and rights, or the bucket's key. Pictures can't be accepted until then."],
  model: ["Model", "reads the pictures", "Correct the key, the name of the model or the address in the settings. Jobs wait until then, and start by themselves."],
};

export async function show(main, { signal }) {
  const shown = h("div.stack");
  async function look() {
    const [ready, able] = await Promise.all([readiness(signal), call("api/v1/capabilities", { signal }).catch((error) => ({ problems: [{ what: error.message }], warnings: [], models: [], limits: {} }))]);
    const names = Object.keys(ready.checks);
    const away = names.filter((name) => ready.checks[name] !== "ok");
    const account = able.problems.filter((problem) => !away.some((name) => problem.code === `${name}_away`));
    const said = !names.length ? "The service did not say how it is."
      : away.length ? `${away.map((name) => PARTS[name]?.[0] ?? name).join(", ")}: away.`
      : account.length ? "Everything works, but something keeps your requests from being answered." : "Everything works.";
    const models = able.models.map((model) => [[h("code", model.name), " ", model.default && badge("default", "busy")], model.engine, model.problem ? [badge("away", "bad"), h("span.break", model.problem)] : badge("ready", "good")]);
    const limits = Object.entries(able.limits).map(([name, value]) => [h("code", name), name.endsWith("Seconds") ? duration(value) : number(value)]);
    fill(shown,
      h("div", { role: "status" }, notice(names.length && !away.length && !account.length ? "good" : "warn", h("strong", said), ` Looked at ${time(new Date())}.`)),
      h("div.columns.checks", names.map((name) => part(name, ready, able))),
      account.length > 0 && card("What keeps requests from being answered", list(account.map((problem) => [h("strong", problem.what), " ", problem.fix]))),
      able.warnings.length > 0 && card("Worth knowing", list(able.warnings)),
      models.length > 0 && card("Models", table("Models", ["Model", "Engine", "State"], models)),
      h("details.card", h("summary", "Limits"), table("Limits", ["Limit", { label: "Value", numeric: true }], limits)),
      card("For who runs it", h("p", "This command looks at every part, and says what to do:"), code("extract-image doctor", "The command"),
        h("p.hint", able.version && `Version ${able.version}. `, link("The API's description", address("docs")), ", ", link("as OpenAPI", address("openapi.json")), ".")));
  }

  fill(main, head(title, "What the service works with, looked at every 15 seconds.", button("Look now", look)), shown);
  await look();
  (async () => {
    for (;;) {
      await pause(15000, signal);
      // An open list, or a part that has the focus, is not drawn anew under the person.
      if (!document.hidden && !shown.contains(document.activeElement) && !shown.querySelector("details[open]")) await look().catch(() => {});
    }
  })().catch(() => {}); // the screen was left
}

function part(name, ready, able) {
  const [label, does, fix] = PARTS[name] ?? [name, "", "Look in the service's log."];
  const ok = ready.checks[name] === "ok";
  const problem = able.problems.find((one) => one.code === `${name}_away`);
  return card(h("h2.apart", label, badge(ok ? "works" : "away", ok ? "good" : "bad")), h("p.hint", does),
    !ok && [h("p.break", h("strong", "What is wrong: "), ready.details?.[name] ?? problem?.what ?? "It does not answer."), h("p", h("strong", "What to do: "), fix)]);
}

/** /readyz answers with 503 and the same body when something is away, so it is asked without the rules for refusals. */
async function readiness(signal) {
  try {
    return await (await fetch(address("readyz"), { signal, cache: "no-store", credentials: "omit" })).json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { checks: {} };
  }
}
