// Numbers, times and sizes as the browser's locale writes them.

const locale = navigator.languages ? [...navigator.languages] : undefined;
const whole = new Intl.NumberFormat(locale);
const short = new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 });
const fraction = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 });
const day = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const dayShort = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });
const moment = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });

export const number = (value) => whole.format(value ?? 0);
export const compact = (value) => short.format(value ?? 0);
export const percent = (value) => fraction.format(value ?? 0);
export const date = (text) => (text ? day.format(new Date(text)) : "");
export const dayAndMonth = (text) => dayShort.format(new Date(text));
export const time = (text) => (text ? moment.format(new Date(text)) : "");

/** Dollars, with as many digits as a small amount needs. */
export function money(value) {
  const digits = value && Math.abs(value) < 0.01 ? 6 : value && Math.abs(value) < 1 ? 4 : 2;
  return new Intl.NumberFormat(locale, { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value ?? 0);
}

export function bytes(value) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const step = value < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(value) / 3));
  return new Intl.NumberFormat(locale, { style: "unit", unit: units[step], unitDisplay: step ? "short" : "long", maximumFractionDigits: step > 1 ? 1 : 0 }).format(value / 1000 ** step);
}

/** How long, as in "2 min 5 s". */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** How long ago or ahead a time is, as in "5 minutes ago". */
export function ago(text) {
  const seconds = (new Date(text) - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return relative.format(Math.round(seconds), "second");
}

/** One or many: `plural(3, "picture")` is "3 pictures". */
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
