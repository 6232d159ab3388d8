// Credits and money: what there is, what was spent by day, and the ledger.

import { call, query } from "./api.js";
import { chart } from "./chart.js";
import { fill, h } from "./dom.js";
import { compact, date, dayAndMonth, money, number, plural, time } from "./format.js";
import { card, empty, field, head, link, pages, select, table, tabs } from "./ui.js";

export const title = "Usage";
const PERIODS = [["7", "7 days"], ["31", "31 days"], ["90", "90 days"], ["366", "A year"]];
const KINDS = { grant: ["Granted", "+"], reserve: ["Held", ""], charge: ["Charged", "−"], release: ["Given back", "+"] };
/** What the chart can show: its name, how a value is told, and how it is written at the axis. */
const MEASURES = {
  credits: ["Credits", (value) => plural(value, "credit"), compact],
  money: ["Money", money, money],
  jobs: ["Jobs", (value) => plural(value, "job"), compact],
};
const numeric = (label) => ({ label, numeric: true });

export async function show(main, { signal, able }) {
  let period = "31";
  let measure = "credits";
  let days = [];
  const numbers = h("div.columns.figures");
  const drawn = h("div");
  const ledger = pages("Ledger", ["When", "What", "Job", "Source", numeric("Credits")], {
    read: async (cursor) => {
      const page = await call("api/v1/usage" + query({ days: cursor ? 1 : period, limit: 50, cursor }), { signal });
      if (!cursor) summary(page);
      return { entries: page.ledger, next: page.nextCursor };
    },
    cells: ({ kind, job, ...row }) => [time(row.createdAt), KINDS[kind][0], job && link(`${job.slice(0, 16)}…`, `#/run/${encodeURIComponent(job)}`, { class: "mono", title: job }), row.requestSource, KINDS[kind][1] + number(row.credits)],
    none: () => empty("The ledger is empty", "Grants, and what jobs hold and spend, appear here."),
  });

  function draw() {
    const [name, , tick] = MEASURES[measure];
    const values = filled(days, +period).map((day) => ({ ...day, value: day[measure] }));
    const say = (day) => `${noon(day, date)}: ${Object.entries(MEASURES).map(([key, [, tell]]) => tell(day[key])).join(", ")}`;
    const rows = days.map((day) => [noon(day, date), number(day.jobs), number(day.credits), money(day.money)]);
    fill(drawn, chart(`${name} by day`, values, { say, tick, dayLabel: (day) => noon(day, dayAndMonth) }),
      h("details", h("summary", "The numbers as a table"), rows.length ? table("Use by day", ["Day", numeric("Jobs"), numeric("Credits"), numeric("Money")], rows) : h("p", "Nothing was used on these days.")));
  }

  function summary(found) {
    days = found.days;
    const sum = (name) => days.reduce((all, day) => all + day[name], 0);
    const within = `in ${PERIODS.find(([id]) => id === period)[1].toLowerCase()}`;
    fill(numbers, figure("Available", number(found.balance.available), "credits"), figure("Held", number(found.balance.held), "by jobs that run"),
      figure("Spent", number(sum("credits")), `credits ${within}`), figure("Model calls", money(sum("money")), `${within}, by the prices in the settings`));
    draw();
  }

  fill(main, head(title, "", field("Period", select(PERIODS, period, (value) => ((period = value), ledger.load())))),
    h("div.stack", numbers,
      card(tabs("What the chart shows", Object.entries(MEASURES).map(([id, [name]]) => [id, name]), measure, (id) => ((measure = id), draw())), drawn),
      prices(able), h("h2", "Ledger"), ledger.element));
  await ledger.load();
}

const figure = (name, value, note) => card(h("p.label.muted", name), h("p.figure", value), h("p.hint", note));
/** Writes a day of the service, which is a day in UTC, as a day here. */
const noon = (day, write) => write(`${day.date}T12:00`);

/** One entry for each day of the period, because the service leaves out days without use. */
function filled(days, count) {
  const known = Object.fromEntries(days.map((day) => [day.date, day]));
  return Array.from({ length: count }, (_, at) => {
    const day = new Date(Date.now() - (count - 1 - at) * 86400000).toISOString().slice(0, 10);
    return known[day] ?? { date: day, jobs: 0, credits: 0, money: 0 };
  });
}

function prices({ models, credits }) {
  const rows = models.filter((model) => model.price).map(({ name, price }) => [name, money(price.input), money(price.output)]);
  return card("Prices", credits && h("p.muted", `A job costs ${credits.base} credits and ${credits.perImage} for each picture that was read. What fails as a whole costs nothing.`),
    rows.length > 0 && table("Prices of the models", ["Model", numeric("A million tokens in"), numeric("A million tokens out")], rows));
}
