// What works, what is away, and what to do about it.

import { address, call, pause } from "./api.js";
import { fill, h } from "./dom.js";
import { duration, number, time } from "./format.js";
import { badge, button, card, code, link, notice, table } from "./ui.js";

export const title = "Health";
const PARTS = {
  database: ["Database", "keeps jobs, records and credits", "Check that the server of DATABASE_URL runs and that its disk is not full. Nothing is lost meanwhile: jobs go on when it is back."],
  redis: ["Redis", "wakes workers and counts rates", "Check that the server of REDIS_URL runs. Jobs that were accepted are in the database; they start late, but they start."],
  scratch: ["Store of images", "keeps pictures while a job needs them", "Check that SCRATCH_URL can be written: the disk's space and rights, or the bucket's key. Pictures can't be accepted until then."],
  model: ["Model", "reads the pictures", "Correct the key, the name of the model or the address in the settings. Jobs wait until then, and start by themselves."],
};

export async function show(main, { signal }) {
  const shown = h("div", { class: "stack" });
  async function look() {
    const [ready, able] = await Promise.all([readiness(signal), call("api/v1/capabilities", { signal }).catch((error) => ({ problems: [{ what: error.message, fix: "" }], warnings: [], models: [], limits: {}, engine: "" }))]);
    draw(ready, able);
  }

  function draw(ready, able) {
    const names = Object.keys(ready.checks ?? {});
    const away = names.filter((name) => ready.checks[name] !== "ok");
    const account = able.problems.filter((problem) => !names.some((name) => problem.code === `${name}_away`));
    const fine = names.length && !away.length;
    fill(shown,
      h("div", { role: "status" }, notice(fine && !account.length ? "good" : fine ? "warn" : "warn", h("strong", {}, !names.length ? "The service did not say how it is." : away.length ? `${away.map((name) => PARTS[name]?.[0] ?? name).join(", ")}: away.` : account.length ? "Everything works, but something keeps your requests from being answered." : "Everything works."), ` Looked at ${time(new Date().toISOString())}.`)),
      h("ul", { class: "checks" }, names.map((name) => part(name, ready, able))),
      account.length ? card(h("h2", {}, "What keeps requests from being answered"), h("ul", {}, account.map((problem) => h("li", {}, h("strong", {}, problem.what), " ", problem.fix)))) : null,
      able.warnings?.length ? card(h("h2", {}, "Worth knowing"), h("ul", {}, able.warnings.map((text) => h("li", {}, text)))) : null,
      able.models.length ? card(h("h2", {}, "Engine"), table("Models", ["Model", "Engine", "State"], able.models.map((model) => [h("span", {}, h("code", {}, model.name), " ", model.default ? badge("default", "busy") : null), model.engine ?? able.engine, model.problem ? h("span", {}, badge("away", "bad"), " ", model.problem) : badge("ready", "good")]))) : null,
      h("details", { class: "card" }, h("summary", {}, "Limits"), table("Limits", ["Limit", { label: "Value", numeric: true }], Object.entries(able.limits).map(([name, value]) => [h("code", {}, name), name.endsWith("Seconds") ? duration(value) : number(value)]))),
      card(h("h2", {}, "For who runs it"), h("p", {}, "This command looks at every part, and says what to do:"), code("extract-image doctor", "The command"), h("p", {}, able.version ? `Version ${able.version}. ` : "", link("The API's description", address("docs")), ", ", link("as OpenAPI", address("openapi.json")), ".")));
  }

  fill(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Health"), h("p", { class: "muted" }, "What the service works with, looked at every 15 seconds.")), button("Look now", look)), shown);
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
  return h("li", { class: "card part" }, h("div", { class: "row" }, h("h2", {}, label), badge(ok ? "works" : "away", ok ? "good" : "bad")), h("p", { class: "hint" }, does),
    ok ? null : [h("p", {}, h("strong", {}, "What is wrong: "), ready.details?.[name] ?? problem?.what ?? "It does not answer."), h("p", {}, h("strong", {}, "What to do: "), fix)]);
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
