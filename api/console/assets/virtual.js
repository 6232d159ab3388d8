// A long list of which only what is seen is drawn.

import { h } from "./dom.js";

/**
 * Rows or tiles of one height in a box that scrolls. `draw(index)` makes an entry; `height`: pixels of a line; `across()`: entries in
 * one line; `head`: pixels of a header that sticks to the top of the box. With the role `rowgroup` the entries are rows of a table.
 * Returns `{element, count(n), redraw(), show(index)}`: `count` sets how many entries there are, `show` scrolls to one.
 */
export function virtual({ draw, height, across = () => 1, label, role = "list", margin = 6, head = 0 }) {
  const inner = h("div", { class: "virtual-inner", role, "aria-label": label });
  const element = h("div", { class: "virtual", tabindex: role === "rowgroup" ? null : "0" }, inner);
  let total = 0;
  let drawn = new Map();
  let frame = 0;
  let focused = -1; // an entry that is drawn again gets the focus back

  function paint() {
    frame = 0;
    const wide = Math.max(1, across(element.clientWidth));
    inner.style.height = `${Math.ceil(total / wide) * height}px`;
    const first = Math.max(0, (Math.floor(element.scrollTop / height) - margin) * wide);
    const end = Math.min(total, (Math.ceil((element.scrollTop + element.clientHeight) / height) + margin) * wide);
    const kept = new Map();
    let before = null; // entries stand in their order, which a screen reader follows
    for (let index = first; index < end; index++) {
      let entry = drawn.get(index);
      if (!entry) {
        entry = draw(index);
        if (role === "rowgroup") entry.setAttribute("aria-rowindex", index + 2);
        else {
          entry.setAttribute("aria-setsize", total);
          entry.setAttribute("aria-posinset", index + 1);
        }
        if (before) before.after(entry);
        else inner.prepend(entry);
        if (index === focused) entry.querySelector('[tabindex="0"], a, button')?.focus({ preventScroll: true });
      }
      before = entry;
      entry.style.transform = `translate(${(100 * (index % wide))}%, ${Math.floor(index / wide) * height}px)`;
      entry.style.width = `${100 / wide}%`;
      entry.style.height = `${height}px`;
      kept.set(index, entry);
    }
    for (const [index, entry] of drawn) if (!kept.has(index)) entry.remove();
    drawn = kept;
    focused = -1;
  }
  const later = () => (frame ||= requestAnimationFrame(paint));
  element.addEventListener("scroll", later, { passive: true });
  new ResizeObserver(later).observe(element);
  return {
    element,
    count(n) {
      total = n;
      later();
    },
    redraw(only = undefined) {
      for (const [index, entry] of drawn) {
        if (only !== undefined && !only.has(index)) continue;
        if (entry.contains(document.activeElement)) focused = index;
        entry.remove();
        drawn.delete(index);
      }
      later();
    },
    show(index) {
      const top = Math.floor(index / Math.max(1, across(element.clientWidth))) * height;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (top + height + head > element.scrollTop + element.clientHeight) element.scrollTop = top + height + head - element.clientHeight;
      paint();
      return drawn.get(index);
    },
  };
}
