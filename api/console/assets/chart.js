// A bar chart by day, drawn as SVG. The arrow keys go from bar to bar, and a line of text says what the bar shows.

import { fill, h } from "./dom.js";

const HEIGHT = 240, LEFT = 56, BOTTOM = 30, TOP = 14;

/**
 * `days`: {date ("2026-01-31"), value}, the oldest first. `say(day)`: what stands in the line of text; `tick(value)`: a number at the axis.
 */
export function chart(label, days, { say, tick, dayLabel }) {
  const top = nice(Math.max(...days.map((day) => day.value), 0));
  const WIDTH = innerWidth > 700 ? 900 : 430; // so that its words can be read on a phone
  const step = (WIDTH - LEFT - 8) / Math.max(1, days.length);
  const height = HEIGHT - BOTTOM - TOP;
  const y = (value) => TOP + height - (height * value) / top;
  const said = h("p.chart-said", { role: "status" });
  const lines = [0, 0.5, 1].map((part) => h("g", h("line", { x1: LEFT, x2: WIDTH, y1: y(top * part), y2: y(top * part) }), h("text", { x: LEFT - 8, y: y(top * part) + 4, "text-anchor": "end" }, tick(top * part))));
  const every = Math.ceil((days.length * 110) / WIDTH);
  const bars = days.map((day, at) => {
    const x = LEFT + at * step;
    const tall = day.value > 0 ? Math.max(2, y(0) - y(day.value)) : 0;
    return h("g.day", { role: "img", tabindex: at === days.length - 1 ? "0" : "-1", "aria-label": say(day), on: { focus: () => choose(at), pointerenter: () => choose(at) } },
      h("rect.hit", { x, y: TOP, width: step, height }),
      h("rect.fill", { x: x + step * 0.12, y: y(0) - tall, width: step * 0.76, height: tall, rx: Math.min(3, step * 0.2) }),
      at % every === 0 && h("text", { x: x + step / 2, y: HEIGHT - 10, "text-anchor": "middle" }, dayLabel(day)));
  });
  const choose = (at) => {
    bars.forEach((bar, other) => (bar.classList.toggle("chosen", other === at), bar.setAttribute("tabindex", other === at ? "0" : "-1")));
    fill(said, say(days[at]));
  };
  const keydown = (event) => {
    const at = bars.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: bars.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    bars[Math.min(bars.length - 1, Math.max(0, to))].focus();
  };
  const latest = days.findLastIndex((day) => day.value > 0);
  choose(latest < 0 ? days.length - 1 : latest);
  return h("div.chart-box", said, h("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": `${label}. Arrow keys go from day to day.`, on: { keydown } }, lines, bars));
}

/** The smallest of 1, 2, 5, 10, … (and their tenths, for dollars) that is at least `most`. */
function nice(most) {
  if (!most) return 1;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].find((times) => times * size >= most * 0.999999) * size;
}
