// A picture to look at closely: zoom, move, fit, and boxes over it.

import { fill, h } from "./dom.js";

const MOST = 12; // times the size that fits
const STEP = 1.4;

/**
 * `element` to put in the page; `show(blob or null, {boxes, focus, alt, instead})`: `boxes` are [x0, y0, x1, y1] from 0 to 1 of the
 * picture, `focus` zooms to them, `instead` stands where there is no picture. `key(event)` acts on a key and returns whether it did.
 */
export function makeViewer(signal) {
  const image = h("img", { alt: "", draggable: "false", decoding: "async" });
  const layer = h("div", { class: "viewer-boxes", "aria-hidden": "true" });
  const stage = h("div", { class: "viewer-stage" }, image, layer);
  const words = h("div", { class: "viewer-words" });
  const frame = h("div", { class: "viewer-frame", tabindex: "0", role: "group", "aria-label": "Picture. Plus and minus zoom, 0 fits, arrow keys move." }, stage, words);
  const level = h("output", { class: "viewer-level" });
  const tool = (label, name, act) => h("button", { type: "button", class: "button quiet", "aria-label": name, title: name, on: { click: act } }, label);
  const tools = h("div", { class: "viewer-tools", role: "group", "aria-label": "Zoom" }, tool("−", "Smaller", () => zoom(1 / STEP)), level, tool("+", "Larger", () => zoom(STEP)), tool("Fit", "Fit the whole picture", fit));
  const element = h("div", { class: "viewer" }, frame, tools);
  let address = "";
  let place = { x: 0, y: 0, scale: 1 };
  let boxes = [];
  let focus = false;

  const size = () => ({ width: frame.clientWidth, height: frame.clientHeight, wide: image.naturalWidth || 1, high: image.naturalHeight || 1 });
  const fitting = ({ width, height, wide, high }) => Math.min(width / wide, height / high);

  function draw() {
    const at = size();
    const shown = fitting(at) * place.scale;
    const [w, hgt] = [at.wide * shown, at.high * shown];
    // The picture never leaves the frame; a smaller one stands in its middle.
    place.x = w <= at.width ? (at.width - w) / 2 : Math.min(0, Math.max(at.width - w, place.x));
    place.y = hgt <= at.height ? (at.height - hgt) / 2 : Math.min(0, Math.max(at.height - hgt, place.y));
    Object.assign(stage.style, { width: `${w}px`, height: `${hgt}px`, transform: `translate(${place.x}px, ${place.y}px)` });
    level.value = `${Math.round(shown * 100)}%`;
  }

  function zoom(factor, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
    const scale = Math.min(MOST, Math.max(1, place.scale * factor));
    const by = scale / place.scale;
    place = { scale, x: x - (x - place.x) * by, y: y - (y - place.y) * by };
    draw();
  }
  function fit() {
    place = { x: 0, y: 0, scale: 1 };
    draw();
  }
  function move(x, y) {
    place.x += x;
    place.y += y;
    draw();
  }

  /** Shows the boxes with some of what stands around them. */
  function approach() {
    if (!focus || !boxes.length) return fit();
    const at = size();
    const [x0, y0, x1, y1] = [0, 1, 2, 3].map((side) => Math[side < 2 ? "min" : "max"](...boxes.map((box) => box[side])));
    const base = fitting(at);
    const scale = Math.min(MOST, Math.max(1, Math.min((0.45 * at.width) / ((x1 - x0) * at.wide * base || 1), (0.3 * at.height) / ((y1 - y0) * at.high * base || 1), 6)));
    place = { scale, x: at.width / 2 - ((x0 + x1) / 2) * at.wide * base * scale, y: at.height / 2 - ((y0 + y1) / 2) * at.high * base * scale };
    draw();
  }

  function mark() {
    fill(layer, boxes.map(([x0, y0, x1, y1]) => h("span", { style: { left: `${100 * x0}%`, top: `${100 * y0}%`, width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%` } })));
  }

  image.addEventListener("load", () => ((stage.hidden = tools.hidden = false), approach()));
  image.addEventListener("error", () => address && say("The browser can't draw this picture."));
  const say = (what) => ((stage.hidden = tools.hidden = true), fill(words, what), (level.value = ""));
  const watcher = new ResizeObserver(() => (image.naturalWidth ? approach() : null));
  watcher.observe(frame);
  signal.addEventListener("abort", () => (watcher.disconnect(), address && URL.revokeObjectURL(address)));

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const act = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: fit }[event.key];
    act?.();
    return Boolean(act);
  }
  frame.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (!way && !key(event)) return;
    if (way) move(...way);
    event.preventDefault();
    event.stopPropagation();
  });
  frame.addEventListener("dblclick", (event) => (place.scale > 1.05 ? fit() : zoom(3, ...at(event))));
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && place.scale <= 1) return; // the page scrolls
    event.preventDefault();
    if (event.ctrlKey) zoom(Math.exp(-event.deltaY / 200), ...at(event));
    else move(-event.deltaX, -event.deltaY);
  }, { passive: false });

  const at = (event) => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const fingers = new Map();
  const apart = () => {
    const [one, two] = [...fingers.values()];
    return { length: Math.hypot(one[0] - two[0], one[1] - two[1]), x: (one[0] + two[0]) / 2, y: (one[1] + two[1]) / 2 };
  };
  frame.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, at(event));
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    if (fingers.size === 2) {
      const was = apart();
      fingers.set(event.pointerId, now);
      const is = apart();
      zoom(is.length / Math.max(1, was.length), is.x, is.y);
    } else {
      fingers.set(event.pointerId, now);
      move(now[0] - before[0], now[1] - before[1]);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, (event) => fingers.delete(event.pointerId));

  return {
    element,
    key,
    /** Other boxes over the same picture. */
    point(next = []) {
      boxes = next;
      focus = next.length > 0;
      mark();
      if (image.naturalWidth && !stage.hidden) approach();
    },
    show(blob, { boxes: next = [], focus: close = false, alt = "", instead = "" } = {}) {
      if (address) URL.revokeObjectURL(address);
      address = "";
      boxes = next;
      focus = close;
      mark();
      fill(words);
      if (!blob) {
        image.removeAttribute("src");
        return say(instead);
      }
      image.alt = alt;
      image.src = address = URL.createObjectURL(blob);
    },
  };
}
