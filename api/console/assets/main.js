// The frame: who is signed in, which screen is shown, and what keeps the service from answering.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { complain, notice, button } from "./ui.js";

/** The part of the address after `#` is the screen's name, and its module. A screen has `title` and `show(main, {rest, signal, able})`. */
const SCREENS = "new fields try run review export jobs usage webhooks keys health".split(" ");
const NAVIGATION = "New Jobs Usage Webhooks Keys Health".split(" ");
/** A screen that belongs to a step → the entry of the navigation under which it stands. */
const UNDER = { fields: "new", try: "new", run: "jobs", review: "jobs", export: "jobs" };
const main = document.getElementById("main");
const banner = document.getElementById("banner");
const bar = document.getElementById("bar");

let able = null; // what the service can do, by /api/v1/capabilities
let leave = new AbortController(); // what the screen before still does
let first = true;

async function start() {
  api.whenSignedOut(signOut);
  addEventListener("hashchange", () => show().catch(complain));
  addEventListener("online", look);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  setInterval(look, 60000);
  await show();
}

function signOut() {
  api.dropKey();
  able = null;
  location.hash = "#/signin";
}

async function show() {
  leave.abort();
  leave = new AbortController();
  const signal = leave.signal;
  const arrived = new URLSearchParams(location.hash.slice(1)).get("key");
  if (arrived) {
    api.keepKey(arrived);
    able = null;
    history.replaceState(null, "", `${location.pathname}#/new`); // the key leaves the address and the history
  }
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  if (!api.key()) return present(await import("./signin.js"), "signin", { signal, entered: enter });
  if (!able) await look();
  if (!api.key()) return;
  const wanted = SCREENS.includes(name) ? name : "new";
  const screen = await import(`./${wanted}.js`);
  if (!signal.aborted) await present(screen, wanted, { rest, signal, able });
}

async function present(screen, name, what) {
  document.title = `${screen.title} · extract-image`;
  frame(name);
  fill(main);
  main.dataset.screen = name;
  main.setAttribute("aria-busy", true);
  scrollTo(0, 0);
  try {
    await screen.show(main, what);
  } catch (error) {
    if (error.name === "AbortError" || what.signal.aborted) return;
    if (error.status === undefined) console.error(error);
    fill(main, notice("bad", h("p", error.message), button("Try again", show)));
  }
  if (what.signal.aborted) return;
  main.setAttribute("aria-busy", false);
  // A screen reader and the keyboard go on where the new screen begins.
  if (!first) (main.querySelector("[autofocus]") ?? main).focus({ preventScroll: true });
  first = false;
}

function frame(name) {
  bar.querySelectorAll("nav, .signout").forEach((part) => part.remove());
  if (name === "signin") return fill(banner);
  const place = UNDER[name] ?? name;
  const links = NAVIGATION.map((label) => h("a", { href: `#/${label.toLowerCase()}`, "aria-current": label.toLowerCase() === place && "page" }, label));
  bar.append(h("nav", { "aria-label": "Main" }, links), button("Sign out", signOut, { kind: "quiet signout" }));
}

/** Looks what the service can do and what keeps it from answering, and shows it above every screen. */
async function look() {
  if (!api.key()) return;
  try {
    able = await api.call("api/v1/capabilities");
  } catch (error) {
    if (error.status === 401) return;
    able ??= { engine: "", models: [], limits: {}, ready: false, problems: [] };
    return void fill(banner, notice("bad strip", h("strong", "No answer. "), error.message));
  }
  const problems = able.problems.map((problem) => h("li", h("strong", problem.what), " ", problem.fix));
  fill(banner, problems[0] ? notice("bad strip", h("ul", problems)) : h("p.strip.ready", h("span.dot"), `Answered by ${able.engine}, model ${able.models[0]?.name ?? "none"}`));
}

function enter(text) {
  api.keepKey(text);
  location.hash = "#/new";
  return show();
}

start().catch(complain);
