"""Counts the pages or frames of a file. It reads only headers and decodes nothing, so it is quick."""

from __future__ import annotations

import struct

from PIL import Image

from pipeline.decode.heif import sequence_frames
from pipeline.decode.tiff_directory import MOST_PAGES, MalformedTiff, first_directory, pages
from pipeline.notes import NoteCode, note

#: Formats whose frames Pillow counts when it opens the file, without decoding them.
_COUNTED_BY_PILLOW = frozenset({"AVIF", "FLI", "HEIC", "HEIF", "HEIF sequence", "PNG", "WebP"})
_HEIF = frozenset({"HEIC", "HEIF"})
_WITH_TRACKS = _HEIF | {"AVIF", "HEIF sequence"}
_MOST_GIF_PARTS = 1_000_000  # parts of blocks; encoders make them 255 bytes long, so 20 MB have 78,000
_GIF_BLOCK, _GIF_FRAME = 0x21, 0x2C


def note_of_pages(kind: str, data: bytes, image: Image.Image) -> str:
    """A note that only the first page or frame was read; empty if the file has only one."""
    if kind in {"TIFF", "DCX"}:
        count, what = _tiff_pages(data) if kind == "TIFF" else _dcx_pages(data), "pages"
    elif kind == "GIF":
        count, what = _gif_frames(data), "frames"
    elif kind in _COUNTED_BY_PILLOW:
        count, what = int(getattr(image, "n_frames", 1)), "frames" if kind not in _HEIF else "pictures"
        # Pillow and libheif count the still pictures, or the frames of the sequence that they decode, and not both.
        if kind in _WITH_TRACKS and (frames := sequence_frames(data)) > max(count, 1):
            count, what = frames, "frames"
    else:
        return ""
    if count < 2:
        return ""
    counted = f"{MOST_PAGES} or more" if count >= MOST_PAGES else count
    return note(NoteCode.SEVERAL_PAGES, f"{counted} {what}, the first was read")


def _tiff_pages(data: bytes) -> int:
    try:
        return pages(data, first_directory(data))
    except (MalformedTiff, struct.error):
        return 1


def _dcx_pages(data: bytes) -> int:
    offsets = (int.from_bytes(data[at : at + 4], "little") for at in range(4, min(len(data), 4 + 4 * MOST_PAGES), 4))
    return next((number for number, offset in enumerate(offsets) if not offset), MOST_PAGES)


def _gif_frames(data: bytes) -> int:
    """The number of frames, at most MOST_PAGES. It follows the lengths before the blocks, of _MOST_GIF_PARTS at most."""
    at = 13 + _gif_table(data[10:11])
    count = parts = 0
    while count < MOST_PAGES and parts < _MOST_GIF_PARTS and at < len(data) and data[at] in {_GIF_BLOCK, _GIF_FRAME}:
        if data[at] == _GIF_FRAME:
            count += 1
            at += 11 + _gif_table(data[at + 9 : at + 10])
        else:
            at += 2
        while at < len(data) and data[at] and parts < _MOST_GIF_PARTS:
            at += 1 + data[at]
            parts += 1
        at += 1
        parts += 1
    return count


def _gif_table(flags: bytes) -> int:
    """The size in bytes of the colour table that the flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
