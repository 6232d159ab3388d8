// Small pictures. They are made when they are seen, a few at a time, and the oldest are forgotten.

import * as api from "./api.js";
import { h } from "./build.js";
import { draft } from "./draft.js";
import { drawable } from "./pictures.js";
import { patiently } from "./send.js";

const WIDTH = 320;
const MOST_KEPT = 400;
const MOST_WAITING = 200; // more than a screen shows
const MOST_AT_ONCE = 3;
/** What a whole file of this kind has among its last bytes. */
const ENDS = { "image/jpeg": "ÿÙ", "image/png": "IEND", "image/gif": ";" };
const kept = new Set();
const waiting = [];
let running = 0;

const sign = (text) => h("span.thumb.none", { "aria-hidden": "true" }, text);

/** An image of the picture that appears when it is there. Its name stands beside it, so it has no text of its own. `marked`: see `preview`. */
export function thumb(picture, marked = () => {}) {
  if (picture.problem) return sign("!");
  if (picture.url) return sign("URL");
  const image = h("img.thumb", { alt: "", decoding: "async", draggable: "false" });
  if (picture.thumb) image.src = picture.thumb;
  else {
    waiting.push([picture, image, marked]);
    if (waiting.length > MOST_WAITING) waiting.shift();
    next();
  }
  return image;
}

function next() {
  while (running < MOST_AT_ONCE && waiting.length) {
    const [picture, image, marked] = waiting.pop(); // what was seen last is wanted first
    running++;
    // One frame later the image is in the page, or it has been scrolled away again.
    requestAnimationFrame(async () => {
      try {
        if (image.isConnected) {
          picture.thumb ||= await small(picture);
          remember(picture);
          image.src = picture.thumb;
        }
      } catch {
        image.replaceWith(sign("?"));
        if (picture.problem) marked();
      } finally {
        running--;
        next();
      }
    });
  }
}

/** Looks at the end of each new file. What seems to be cut short is shown to the service at once, because browsers draw it all the same. */
export async function inspect(marked) {
  for (const one of draft.pictures) {
    if (one.inspected || one.problem || !drawable(one)) continue;
    one.inspected = true;
    const end = await one.file.slice(-64).arrayBuffer().then((bytes) => new TextDecoder("latin1").decode(bytes), () => "");
    if (!end.includes(ENDS[one.type] ?? "")) await preview(one, WIDTH).then(URL.revokeObjectURL, () => one.problem && marked());
  }
}

async function small(picture) {
  const bitmap = drawable(picture) && (await createImageBitmap(picture.file, { resizeWidth: WIDTH, resizeQuality: "medium" }).catch(() => null));
  if (!bitmap) return preview(picture, WIDTH); // perhaps the service can read it
  const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  return URL.createObjectURL(await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.8)));
}

/** The address of a picture as the service draws it. A picture that no job could read is marked as unfit. */
async function preview(picture, width) {
  try {
    return URL.createObjectURL(await patiently(() => api.blob(`api/v1/preview?width=${width}`, { method: "POST", body: picture.file, more: { "Content-Type": "application/octet-stream" } })));
  } catch (error) {
    if (error.status === 400) picture.problem = error.message;
    throw error;
  }
}

function remember(picture) {
  kept.delete(picture);
  kept.add(picture);
  if (kept.size <= MOST_KEPT) return;
  const [old] = kept;
  kept.delete(old);
  URL.revokeObjectURL(old.thumb);
  old.thumb = "";
}

/** A large image of the picture. Its address is given back when `signal` ends. */
export function large(picture, signal) {
  if (picture.url) return h("p.large.none", "The service fetches this picture: ", h("span.mono", picture.url));
  const image = h("img.large", { alt: "" }); // the browser would show a text in place of the picture while that is made
  const show = (address) => {
    Object.assign(image, { src: address, alt: picture.name });
    signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  };
  const byService = () => preview(picture, 1200).then(show, (error) => image.replaceWith(h("p.large.none", error.message)));
  if (!drawable(picture)) byService();
  else {
    image.addEventListener("error", byService, { once: true });
    show(URL.createObjectURL(picture.file));
  }
  return image;
}
