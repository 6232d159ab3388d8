// The account's API keys. A new key is shown once.

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { date } from "./format.js";
import { ask, badge, button, card, code, field, head, notice, say, table, when } from "./ui.js";

export const title = "Keys";

export async function show(main, { signal }) {
  const shown = h("div");
  const made = h("div", { role: "status" });
  const input = h("input", { maxlength: "200", autocomplete: "off", required: true, placeholder: "What will use it, such as: till 3" });

  async function load() {
    const { keys } = await call("api/v1/keys", { signal });
    fill(shown, table(title, ["Name", "Begins with", "Made", "Last used", "Action"], keys.map((key) => [
      h("span.break", key.name, " ", key.current && badge("this tab", "busy")), h("code", `${key.prefix}…`), date(key.createdAt), key.lastUsedAt ? when(key.lastUsedAt) : "never",
      button("Revoke", () => revoke(key), { "aria-label": `Revoke ${key.name}`, kind: "danger", why: key.current && "This tab is signed in with it. Sign in with another key to revoke it." }),
    ])));
  }

  async function revoke(key) {
    const text = h("p", "Programs that use ", h("strong.break", key.name), " are refused from now on. It can't be undone.");
    if (!(await ask("Revoke this key?", text, [["", "Keep it"], ["revoke", "Revoke", "danger"]]))) return;
    await call(`api/v1/keys/${encodeURIComponent(key.id)}`, { method: "DELETE", signal });
    say(`${key.name} is revoked.`);
    fill(made);
    await load();
    shown.firstChild.focus();
  }

  const create = button("Create key", async () => {
    const name = input.value.trim();
    input.ariaInvalid = !name;
    if (!name) {
      input.focus();
      return say("Give the key a name first.", "bad");
    }
    const { key } = await call("api/v1/keys", { method: "POST", json: { name }, signal });
    input.value = "";
    const heading = h("h2", { tabindex: "-1" }, "Copy the key now");
    fill(made, notice("good", heading, h("p", "It is shown this once. The service keeps no copy that could be shown again."), code(key, "The key")));
    await load();
    heading.focus();
  }, { kind: "primary" });
  const submit = (event) => (event.preventDefault(), create.click());
  fill(main, head(title, "Each key does what this account may do, and spends its credits."),
    h("div.stack", card(h("form.row", { on: { submit } }, field("Name of the new key", input), create)), made, shown));
  await load();
}
