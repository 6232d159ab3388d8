// Takes files and addresses into the draft, and says before anything is sent what can't be used.

import { draft, usable } from "./draft.js";
import { bytes } from "./format.js";

const VIDEO = "A video is no picture: add the frames that you mean.";
const SVG = "SVG is a drawing: export it as PNG.";
/** A media type, or why it is no picture, and how such files begin. */
const BEGINNINGS = [
  ["image/png", "\x89PNG"],
  ["image/jpeg", "\xff\xd8\xff"],
  ["image/gif", "GIF8"],
  ["image/webp", "RIFF....WEBP"],
  ["image/bmp", "BM"],
  ["image/tiff", "II[*+]\0", "MM\0[*+]"],
  ["image/avif", "....ftypavi[fs]"],
  ["image/heic", "....ftyp(hei|hev|mif1|msf1)"],
  [VIDEO, "....ftyp", "\x1aE\xdf\xa3", "FLV\x01"],
  ["A PDF is no picture: save its pages as pictures first.", "%PDF"],
  ["An archive or Office document is no picture: add the pictures in it.", "PK\x03\x04", "\xd0\xcf\x11\xe0", "7z\xbc\xaf", "Rar!", "\x1f\x8b"],
].map(([kind, ...heads]) => [kind, new RegExp(`^(${heads.join("|")})`, "s")]);
const BY_NAME = /\.(tga|icb|vda|vst|pcx|sgi|rgb|bw|fli|flc|gbr|xbm|cur|pcd|msp|dcx|dds|blp|ftex|ftu|ftc|fits?|icns|ico|qoi|psd|pxr|ras|sun|xpm|p[bgpnf]m|j2k|jp2|jpf|jxl)$/i;
const JUNK = /(^|\/)(\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)$/i;
const order = new Intl.Collator(undefined, { numeric: true });
let last = 0;

/** The name without its folders. */
export const shortName = (picture) => picture.name.split("/").pop();

/** The kind of a file by its first bytes: a media type, "image/*" for a rarer picture, or "" with the reason why it is none. */
function kindOf(bytes, name) {
  const head = String.fromCharCode(...bytes);
  const found = !head ? "The file is empty." : BEGINNINGS.find(([, begins]) => begins.test(head))?.[0] ?? (/^(\xef\xbb\xbf)?\s*(<\?xml.*)?<svg/is.test(head) || (/^\s*<\?xml/i.test(head) && /\.svg$/i.test(name)) ? SVG
    : BY_NAME.test(name) || /[\0-\x08\x0e-\x1f]/.test(head) ? "image/*" : "This is text, not a picture."); // the service knows more kinds than this list
  return found.startsWith("image/") ? [found, ""] : ["", found];
}

/** Whether the browser draws such a picture by itself. */
export const drawable = (picture) => /^image\/(png|jpeg|gif|webp|bmp|avif)$/.test(picture.type);

/** Why an address can't be used. Empty: it can. */
export function addressFault(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return "This is no address: it begins with https://";
  }
  if (!["http:", "https:", "s3:", "gs:"].includes(url.protocol)) return `Addresses begin with https://, not ${url.protocol}`;
  return url.host ? "" : "The address names no host.";
}

/** Adds files. `entries`: {file, name}. `seen` is called when some have been looked at. */
export async function addFiles(entries, able, seen = () => {}) {
  const most = able.limits.imageBytes ?? 20971520;
  const wanted = entries.filter(({ name }) => !JUNK.test(name)).sort((a, b) => order.compare(a.name, b.name));
  for (let at = 0; at < wanted.length; at += 64) {
    draft.pictures.push(...await Promise.all(wanted.slice(at, at + 64).map(({ file, name }) => picture(file, name, most))));
    markTwins();
    seen();
  }
}

async function picture(file, name, most) {
  const made = { id: ++last, name, file, url: "", size: file.size, type: "", problem: "", hint: "", thumb: "" };
  try {
    const head = new Uint8Array(await file.slice(0, 256).arrayBuffer());
    [made.type, made.problem] = kindOf(head, name);
  } catch {
    made.problem = "The file can't be read any more: add it again.";
  }
  if (!made.problem && file.size > most) made.problem = `Too large: ${bytes(file.size)}, and at most ${bytes(most)} are taken.`;
  return made;
}

/** Adds addresses, one a line, and returns how many. */
export function addAddresses(text) {
  const lines = text.split(/\s*[\r\n]+\s*/).map((line) => line.trim()).filter(Boolean);
  for (const url of lines) {
    const name = url.replace(/[?#].*$/, "").split("/").filter(Boolean).pop() ?? url;
    let shown = name;
    try {
      shown = decodeURIComponent(name);
    } catch {
      // A stray percent sign stays as it is.
    }
    draft.pictures.push({ id: ++last, name: shown, file: null, url, size: 0, type: "", problem: addressFault(url), hint: "", thumb: "" });
  }
  markTwins();
  return lines.length;
}

function markTwins() {
  const seen = new Set();
  for (const one of draft.pictures) {
    const twin = one.url || `${shortName(one)} ${one.size}`;
    one.hint = !one.problem && seen.has(twin) ? "Perhaps there twice" : "";
    seen.add(twin);
  }
}

/** Takes pictures out of the draft. */
export function remove(gone) {
  const out = new Set(gone);
  for (const one of out) if (one.thumb) URL.revokeObjectURL(one.thumb);
  draft.pictures = draft.pictures.filter((one) => !out.has(one));
  markTwins();
}

/** The files of a drop, with those of its folders. Must be called in the event itself: the browser forgets them afterwards. */
export async function dropped(transfer) {
  const roots = [...transfer.items].filter((item) => item.kind === "file").map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const found = [];
  for (const [entry, file] of roots) {
    if (entry) await walk(entry, found);
    else if (file) found.push({ file, name: file.name });
  }
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file) found.push({ file, name: entry.fullPath.replace(/^\//, "") });
  } else {
    const reader = entry.createReader();
    // A reader gives a hundred entries at a time, and none when it has given all.
    for (let some; (some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])))).length; ) for (const inner of some) await walk(inner, found);
  }
}

/** The pictures that can be sent as jobs: `{kind, pictures, bytes}`, each within what one request takes. */
export function parts(limits, pictures = usable()) {
  const room = Math.min(limits.totalBytes ?? 104857600, (limits.bodyBytes ?? 167772160) - 65536);
  const made = [];
  for (const kind of ["upload", "url"]) {
    let part = null;
    for (const one of pictures) {
      if ((one.url ? "url" : "upload") !== kind) continue;
      const size = one.url ? one.url.length + 4 : one.size + 1024; // with the part's own headers
      if (!part || part.pictures.length >= (limits.imagesPerRequest ?? 3000) || part.bytes + size > room) made.push((part = { kind, pictures: [], bytes: 0 }));
      part.pictures.push(one);
      part.bytes += size;
    }
  }
  return made;
}
