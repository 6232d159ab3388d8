// Small pictures. They are made when they are seen, a few at a time, and the oldest are forgotten.

import * as api from "./api.js";
import { h } from "./dom.js";
import { drawable } from "./pictures.js";

const WIDTH = 320;
const MOST_KEPT = 400;
const MOST_AT_ONCE = 3;
const kept = new Set();
const waiting = [];
let running = 0;

/** An image of the picture that appears when it is there. Its name stands beside it, so it has no text of its own. */
export function thumb(picture) {
  if (picture.url) return h("span", { class: "thumb address", "aria-hidden": "true" }, "URL");
  const image = h("img", { class: "thumb", alt: "", decoding: "async", draggable: "false" });
  if (picture.thumb) image.src = picture.thumb;
  else if (!picture.problem) {
    waiting.push([picture, image]);
    next();
  }
  if (picture.problem) return h("span", { class: "thumb none", "aria-hidden": "true" }, "!");
  return image;
}

function next() {
  while (running < MOST_AT_ONCE && waiting.length) {
    const [picture, image] = waiting.pop(); // what was seen last is wanted first
    running++;
    // One frame later the image is in the page, or it has been scrolled away again.
    requestAnimationFrame(async () => {
      try {
        if (image.isConnected) {
          picture.thumb ||= await small(picture);
          remember(picture);
          image.src = picture.thumb;
        }
      } catch (error) {
        image.replaceWith(h("span", { class: "thumb none", title: error.message, "aria-hidden": "true" }, "?"));
      } finally {
        running--;
        next();
      }
    });
  }
}

async function small(picture) {
  if (!drawable(picture)) return preview(picture, WIDTH);
  const bitmap = await createImageBitmap(picture.file, { resizeWidth: WIDTH, resizeQuality: "medium" }).catch(() => null);
  if (!bitmap) return preview(picture, WIDTH); // perhaps the service can read it
  const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  return URL.createObjectURL(await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.8)));
}

/** The address of a picture as the service draws it. */
async function preview(picture, width) {
  const path = `api/v1/preview?width=${width}`;
  return URL.createObjectURL(await api.blob(path, { method: "POST", body: picture.file, more: { "Content-Type": "application/octet-stream" } }));
}

function remember(picture) {
  kept.delete(picture);
  kept.add(picture);
  for (const old of kept) {
    if (kept.size <= MOST_KEPT) break;
    kept.delete(old);
    URL.revokeObjectURL(old.thumb);
    old.thumb = "";
  }
}

/** A large image of the picture. Its address is given back when `signal` ends. */
export function large(picture, signal) {
  if (picture.url) return h("p", { class: "large none" }, "The service fetches this picture: ", h("span", { class: "mono" }, picture.url));
  const image = h("img", { class: "large", alt: picture.name, decoding: "async" });
  const show = (address) => {
    image.src = address;
    signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  };
  const byService = () => preview(picture, 1200).then(show, (error) => image.replaceWith(h("p", { class: "large none" }, error.message)));
  if (!drawable(picture)) byService();
  else {
    image.addEventListener("error", byService, { once: true });
    show(URL.createObjectURL(picture.file));
  }
  return image;
}
