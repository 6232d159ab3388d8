// Sign in with a key.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { button, card, code, complain, field, notice } from "./ui.js";

export const title = "Sign in";

export async function show(main, { entered }) {
  const said = h("div");
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", autofocus: true, required: true });
  const form = h("form", { class: "stack" }, field("API key", input, { hint: "The key stays in this tab and is sent to this service alone. It is gone when you close the tab." }), h("button", { class: "button primary" }, "Sign in"), said);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return void fill(said, notice("bad", "Paste a key first."));
    try {
      const answer = await fetch(api.address("api/v1/key"), { headers: { Authorization: `Bearer ${text}` }, cache: "no-store" });
      if (answer.ok) return void (await entered(text));
      fill(said, notice("bad", answer.status === 401 ? "The service does not know this key. Check that it is whole, and that nobody has revoked it." : `The service answered with ${answer.status}. Try again in a moment.`));
    } catch (error) {
      if (error instanceof TypeError) fill(said, notice("bad", "The service can't be reached. Check that it runs."));
      else complain(error);
    }
  });
  fill(main, h("div", { class: "narrow" }, h("h1", {}, "See each picture beside what was read in it"), card(form),
    h("details", {}, h("summary", {}, "I have no key"), h("p", {}, "The command that runs the service prints a link that signs you in. Whoever runs it can also make a key:"), code("extract-image keys create me --credits 1000", "The command"), h("p", {}, "Programs use the same key. ", h("a", { href: "docs" }, "The API's description"), " shows how."))));
  input.focus();
}
