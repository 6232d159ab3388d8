// The account's API keys. A new key is shown once.

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { ago, date, time } from "./format.js";
import { ask, badge, button, card, code, field, notice, say, table } from "./ui.js";

export const title = "Keys";

export async function show(main, { signal }) {
  const list = h("div");
  const made = h("div", { role: "status" });
  const input = h("input", { maxlength: "200", autocomplete: "off", required: true, placeholder: "What will use it, such as: till 3" });

  async function load() {
    const { keys } = await call("api/v1/keys", { signal });
    const rows = keys.map((key) => [
      h("span", { class: "break" }, key.name, " ", key.current ? badge("this tab", "busy") : null), h("code", {}, `${key.prefix}…`), date(key.createdAt),
      key.lastUsedAt ? h("time", { datetime: key.lastUsedAt, title: time(key.lastUsedAt) }, ago(key.lastUsedAt)) : "never",
      button("Revoke", () => revoke(key), { "aria-label": `Revoke ${key.name}`, kind: "danger", why: key.current ? "This tab is signed in with it. Sign in with another key to revoke it." : "" }),
    ]);
    fill(list, table("Keys", ["Name", "Begins with", "Made", "Last used", "Action"], rows));
  }

  async function revoke(key) {
    const text = h("p", {}, "Programs that use ", h("strong", { class: "break" }, key.name), " are refused from now on. It can't be undone.");
    if ((await ask("Revoke this key?", text, [["", "Keep it"], ["revoke", "Revoke", "danger"]])) !== "revoke") return;
    await call(`api/v1/keys/${encodeURIComponent(key.id)}`, { method: "DELETE", signal });
    say(`${key.name} is revoked.`);
    fill(made);
    await load();
    list.querySelector(".scroll").focus();
  }

  const create = async () => {
    const name = input.value.trim();
    if (!name) {
      input.setAttribute("aria-invalid", "true");
      input.focus();
      return say("Give the key a name first.", "bad");
    }
    input.removeAttribute("aria-invalid");
    const key = await call("api/v1/keys", { method: "POST", json: { name }, signal });
    input.value = "";
    fill(made, notice("good", h("h2", { tabindex: "-1" }, "Copy the key now"), h("p", {}, "It is shown this once. The service keeps no copy that could be shown again."), code(key.key, "The key")));
    await load();
    made.querySelector("h2").focus();
  };
  const submit = button("Create key", create, { kind: "primary" });
  const form = h("form", { class: "inline", on: { submit: (event) => (event.preventDefault(), submit.click()) } }, field("Name of the new key", input), submit);
  fill(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Keys"), h("p", { class: "muted" }, "Each key does what this account may do, and spends its credits."))), h("div", { class: "stack" }, card(form), made, list));
  await load();
}
