// A picture to look at closely: zoom, move, fit, and boxes over it.

import { fill, h } from "./dom.js";

const MOST = 12; // times the size that fits
const STEP = 1.4;

/**
 * `element` to put in the page; `show(blob or null, {boxes, alt, instead})`: `boxes` as in `point`, `instead` stands where there is no
 * picture; `point(boxes)` marks other boxes and zooms to them; `key(event)` acts on a key and returns whether it did. A box is
 * [x0, y0, x1, y1] from 0 to 1 of the picture, or its corners in pixels of the original, which is `blob.across` pixels wide.
 */
export function makeViewer(signal) {
  const image = h("img", { alt: "", draggable: "false", decoding: "async" });
  const layer = h("div.viewer-boxes", { "aria-hidden": "true" });
  const stage = h("div.viewer-stage", image, layer);
  const words = h("div.viewer-words");
  const frame = h("div.viewer-frame", { tabindex: "0", role: "group", "aria-label": "Picture. Plus and minus zoom, 0 fits, arrow keys move." }, stage, words);
  const level = h("output.viewer-level");
  const tool = (label, name, act) => h("button", { type: "button", class: "button quiet", "aria-label": name, title: name, on: { click: act } }, label);
  const tools = h("div.viewer-tools", { role: "group", "aria-label": "Zoom" }, tool("−", "Smaller", () => zoom(1 / STEP)), level, tool("+", "Larger", () => zoom(STEP)), tool("Fit", "Fit the whole picture", fit));
  let address = "";
  let across = 0;
  let place = { x: 0, y: 0, scale: 1 };
  let boxes = [];

  /** The frame's size, and that of the picture when it fits in the frame. */
  function sizes() {
    const { clientWidth: width, clientHeight: height } = frame;
    const { naturalWidth: wide, naturalHeight: high } = image;
    const fits = Math.min(width / wide, height / high) || 1;
    return { width, height, wide: wide * fits, high: high * fits, fits };
  }

  function draw() {
    const { width, height, wide, high, fits } = sizes();
    // The picture never leaves the frame; a smaller one stands in its middle.
    const within = (at, room, size) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, at)));
    const [w, hgt] = [wide * place.scale, high * place.scale];
    place.x = within(place.x, width, w);
    place.y = within(place.y, height, hgt);
    Object.assign(stage.style, { width: `${w}px`, height: `${hgt}px`, transform: `translate(${place.x}px, ${place.y}px)` });
    level.value = `${Math.round(100 * fits * place.scale)}%`;
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

  /** Marks the boxes, and shows them with some of what stands around them. */
  function approach() {
    if (!image.naturalWidth || stage.hidden) return;
    const pixels = across || image.naturalWidth;
    const size = [pixels, (pixels * image.naturalHeight) / image.naturalWidth];
    const sides = boxes.map((box) => (box[0].length ? [Math.min, Math.max].flatMap((most) => size.map((whole, way) => most(...box.map((corner) => corner[way])) / whole)) : box));
    fill(layer, sides.map(([x0, y0, x1, y1]) => h("span", { style: { left: `${100 * x0}%`, top: `${100 * y0}%`, width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%` } })));
    if (!sides.length) return fit();
    const [x0, y0, x1, y1] = [0, 1, 2, 3].map((side) => Math[side < 2 ? "min" : "max"](...sides.map((box) => box[side])));
    const { width, height, wide, high } = sizes();
    const scale = Math.max(1, Math.min(6, (0.45 * width) / ((x1 - x0) * wide || 1), (0.3 * height) / ((y1 - y0) * high || 1)));
    place = { scale, x: width / 2 - ((x0 + x1) / 2) * wide * scale, y: height / 2 - ((y0 + y1) / 2) * high * scale };
    draw();
  }

  function instead(what) {
    stage.hidden = tools.hidden = true;
    fill(words, what);
  }
  image.onload = () => ((stage.hidden = tools.hidden = false), approach());
  image.onerror = () => address && instead("The browser can't draw this picture.");
  const watcher = new ResizeObserver(approach);
  watcher.observe(frame);
  signal.addEventListener("abort", () => (watcher.disconnect(), URL.revokeObjectURL(address)));

  function key(event) {
    const act = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: fit }[event.key];
    act?.();
    return Boolean(act);
  }
  frame.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const way = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (!way && !key(event)) return;
    if (way) move(...way);
    event.preventDefault();
    event.stopPropagation();
  };
  const at = (event) => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  frame.ondblclick = (event) => (place.scale > 1.05 ? fit() : zoom(3, ...at(event)));
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && place.scale <= 1) return; // the page scrolls
    event.preventDefault();
    if (event.ctrlKey) zoom(Math.exp(-event.deltaY / 200), ...at(event));
    else move(-event.deltaX, -event.deltaY);
  }, { passive: false });

  const fingers = new Map();
  /** How far apart two fingers are, and the point between them. */
  const pinch = () => {
    const [[x0, y0], [x1, y1]] = fingers.values();
    return [Math.hypot(x0 - x1, y0 - y1) || 1, (x0 + x1) / 2, (y0 + y1) / 2];
  };
  frame.onpointerdown = (event) => {
    fingers.set(event.pointerId, at(event));
    frame.setPointerCapture(event.pointerId);
  };
  frame.onpointermove = (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const was = fingers.size === 2 && pinch();
    fingers.set(event.pointerId, now);
    if (was) {
      const [apart, x, y] = pinch();
      zoom(apart / was[0], x, y);
    } else move(now[0] - before[0], now[1] - before[1]);
  };
  frame.onpointerup = frame.onpointercancel = (event) => fingers.delete(event.pointerId);

  return {
    element: h("div.viewer", frame, tools),
    key,
    point(next) {
      boxes = next;
      approach();
    },
    show(blob, { boxes: next = [], alt = "", instead: text = "" }) {
      URL.revokeObjectURL(address);
      address = blob ? URL.createObjectURL(blob) : "";
      boxes = next;
      fill(layer);
      fill(words);
      if (!blob) {
        image.removeAttribute("src");
        return instead(text);
      }
      across = blob.across;
      image.alt = alt;
      image.src = address;
    },
  };
}
