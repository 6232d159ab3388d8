// Credits: what there is, what was spent by day, and the ledger.

import { call, query } from "./api.js";
import { chart } from "./chart.js";
import { fill, h } from "./dom.js";
import { compact, date, money, number, plural, time } from "./format.js";
import { button, card, empty, field, link, select, table, tabs } from "./ui.js";

export const title = "Usage";
const PERIODS = [["7", "7 days"], ["31", "31 days"], ["90", "90 days"], ["366", "A year"]];
const KINDS = { grant: "Granted", reserve: "Held", charge: "Charged", release: "Given back", refund: "Given back" };

export async function show(main, { signal, able }) {
  let period = "31";
  let measure = "credits";
  const numbers = h("div", { class: "numbers" });
  const drawn = h("div");
  const behind = h("div");
  const ledger = h("div", { class: "stack" });
  let days = [];
  const measures = h("div");
  const counted = { credits: (day) => day.credits, money: (day) => day.money ?? 0, jobs: (day) => day.jobs };
  const told = { credits: (value) => plural(value, "credit"), money, jobs: (value) => plural(value, "job") };

  function draw() {
    const whole = filled(days, Number(period)).map((day) => ({ ...day, value: counted[measure](day) }));
    const words = (day) => `${date(`${day.date}T12:00`)}: ${plural(day.credits, "credit")}, ${plural(day.jobs, "job")}${"money" in day ? `, ${money(day.money)}` : ""}`;
    fill(drawn, chart(`${{ credits: "Credits", money: "Money", jobs: "Jobs" }[measure]} by day`, whole, { say: words, tick: measure === "money" ? money : compact, dayLabel: (day) => new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" }).format(new Date(`${day.date}T12:00`)) }));
    const used = whole.filter((day) => day.credits || day.jobs || day.money).reverse();
    const dear = days.some((day) => "money" in day);
    const columns = ["Day", { label: "Jobs", numeric: true }, { label: "Credits", numeric: true }, ...(dear ? [{ label: "Money", numeric: true }] : [])];
    const rows = used.map((day) => [date(`${day.date}T12:00`), number(day.jobs), number(day.credits), ...(dear ? [money(day.money)] : [])]);
    fill(behind, h("details", {}, h("summary", {}, "The numbers as a table"), used.length ? table("Use by day", columns, rows) : h("p", {}, "Nothing was used on these days.")));
  }

  async function load() {
    const found = await call("api/v1/usage" + query({ days: period, limit: 50 }), { signal });
    days = found.days;
    const spent = days.reduce((all, day) => all + day.credits, 0);
    const cost = days.reduce((all, day) => all + (day.money ?? 0), 0);
    const dear = days.some((day) => "money" in day);
    if (measure === "money" && !dear) measure = "credits";
    fill(numbers, tile("Available", number(found.balance.available), "credits"), tile("Held", number(found.balance.held), "by jobs that run"), tile("Spent", number(spent), `credits in ${PERIODS.find(([id]) => id === period)[1].toLowerCase()}`), dear ? tile("Paid for the model", money(cost), "by the prices in the settings") : null);
    fill(measures, tabs("What the chart shows", [["credits", "Credits"], ...(dear ? [["money", "Money"]] : []), ["jobs", "Jobs"]], measure, (id) => ((measure = id), draw())));
    draw();
    drawLedger(found.ledger, found.nextCursor);
  }

  function drawLedger(rows, cursor) {
    const cells = rows.map((row) => [time(row.createdAt), KINDS[row.kind] ?? row.kind, row.job ? link(short(row.job), `#/run/${encodeURIComponent(row.job)}`, { class: "mono", title: row.job }) : "", row.requestSource ?? "", `${{ grant: "+", release: "+", refund: "+", charge: "−" }[row.kind] ?? ""}${number(row.credits)}`]);
    const further = async () => {
      const next = await call("api/v1/usage" + query({ days: 1, limit: 50, cursor }), { signal });
      drawLedger([...rows, ...next.ledger], next.nextCursor);
      ledger.querySelector(".scroll").focus();
    };
    fill(ledger, rows.length ? table("Ledger", ["When", "What", "Job", "Source", { label: "Credits", numeric: true }], cells) : empty("The ledger is empty", "Grants, and what jobs hold and spend, appear here."), cursor ? h("div", { class: "row centre" }, button("Load more", further)) : null);
  }

  fill(main,
    h("div", { class: "head" }, h("h1", {}, "Usage"), h("div", { class: "period" }, field("Period", select(PERIODS, period, (value) => ((period = value), load()))))),
    h("div", { class: "stack" }, numbers, h("section", { class: "card", "aria-label": "Use by day" }, measures, drawn, behind), prices(able), h("h2", {}, "Ledger"), ledger));
  await load();
}

const short = (id) => (id.length > 18 ? `${id.slice(0, 16)}…` : id);
const tile = (name, value, note) => h("div", { class: "card tile" }, h("p", { class: "label" }, name), h("p", { class: "figure" }, value), h("p", { class: "hint" }, note));

/** One entry for each day of the period, because the service leaves out days without use. */
function filled(days, count) {
  const known = new Map(days.map((day) => [day.date, day]));
  const dear = days.some((day) => "money" in day);
  const today = Date.parse(new Date().toISOString().slice(0, 10));
  return Array.from({ length: count }, (_, at) => {
    const name = new Date(today - (count - 1 - at) * 86400000).toISOString().slice(0, 10);
    return known.get(name) ?? { date: name, jobs: 0, credits: 0, ...(dear ? { money: 0 } : {}) };
  });
}

function prices(able) {
  const priced = able.models.filter((model) => model.price);
  const rule = able.credits ? h("p", { class: "hint" }, `A job costs ${able.credits.base} credits and ${able.credits.perImage} for each picture that was read. What fails as a whole costs nothing.`) : null;
  if (!priced.length) return rule;
  const rows = priced.flatMap((model) => (model.can?.tiers ?? ["standard"]).map((tier) => {
    const price = model.price[tier] ?? model.price;
    return [model.name, tier, money(price.input), money(price.output)];
  }));
  return card(h("h2", {}, "Prices"), rule, table("Prices of the models", ["Model", "Tier", { label: "A million tokens in", numeric: true }, { label: "A million tokens out", numeric: true }], rows));
}
