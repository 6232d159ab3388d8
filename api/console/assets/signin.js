// Sign in with a key.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { card, code, complain, field, notice } from "./ui.js";

export const title = "Sign in";

export async function show(main, { entered }) {
  const said = h("div");
  const tell = (text) => fill(said, notice("bad", text));
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", autofocus: true, required: true });
  const submit = async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return tell("Paste a key first.");
    try {
      const answer = await fetch(api.address("api/v1/key"), { headers: { Authorization: `Bearer ${text}` }, cache: "no-store" });
      if (answer.ok) return await entered(text);
      tell(answer.status === 401 ? "The service does not know this key. Check that it is whole, and that nobody has revoked it." : `The service answered with ${answer.status}. Try again in a moment.`);
    } catch (error) {
      if (error instanceof TypeError) tell(api.AWAY);
      else complain(error);
    }
  };
  fill(main, h("div.narrow", h("h1", "See each picture beside what was read in it"),
    card(h("form.stack", { on: { submit } }, field("API key", input, { hint: "The key stays in this tab and is sent to this service alone. It is gone when you close the tab." }), h("button.button.primary", "Sign in"), said)),
    h("details", h("summary", "I have no key"), h("p", "The command that runs the service prints a link that signs you in. Whoever runs it can also make a key:"), code("extract-image keys create me --credits 1000", "The command"), h("p", "Programs use the same key. ", h("a", { href: "docs" }, "The API's description"), " shows how."))));
  input.focus();
}
