"""Reads PCX of any depth and number of planes, because Pillow reads only four of the combinations."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

_HEADER = 128  # bytes
_WITHOUT_PALETTE = 3  # the version without a palette: its pictures use the display's colours
#: The 16 colours of an EGA display.
_DISPLAY = bytes.fromhex("0000000000aa00aa0000aaaaaa0000aa00aaaa5500aaaaaa5555555555ff55ff5555ffffff5555ff55ffffff55ffffff")


def open_pcx(data: bytes) -> Image.Image | Refused:
    """The picture. Raises ValueError or struct.error if the file is damaged."""
    version, encoded, bits, left, top, right, bottom = struct.unpack_from("<xBBBhhhh", data)
    width, height = right - left + 1, bottom - top + 1
    planes, stride = struct.unpack_from("<BH", data, 65)
    if width <= 0 or height <= 0 or not planes:
        raise ValueError("a PCX without a size")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Image.DecompressionBombError
    if bits not in {1, 2, 4, 8} or planes > 4 or planes * bits not in {1, 2, 3, 4, 6, 8, 24, 32}:
        return _refused(bits, planes)
    if stride < (needed := (width * bits + 7) // 8):
        stride = (needed + 1) // 2 * 2
    rows = np.frombuffer(_decoded(data, stride * planes * height, encoded=bool(encoded)), np.uint8).reshape(
        height, planes, stride
    )
    if bits == 8 and planes >= 3:
        return Image.fromarray(np.ascontiguousarray(rows[..., :width].transpose(0, 2, 1)))
    indexes = _indexes(rows, bits)[:, :width]
    if bits == planes == 1:
        return Image.fromarray(indexes.astype(bool))
    image = Image.fromarray(indexes)
    if palette := _palette(data, version, bits * planes):
        image.putpalette(palette)
    return image


def _indexes(rows: np.ndarray, bits: int) -> np.ndarray:
    """The palette index of each pixel. `rows` has the shape (height, planes, bytes), and the first plane has the lowest bits."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    split = ((rows[..., None] >> shifts) & ((1 << bits) - 1)).reshape(*rows.shape[:2], -1)
    indexes = np.zeros((len(rows), split.shape[2]), np.uint8)
    for plane in range(rows.shape[1]):
        indexes |= split[:, plane] << (bits * plane)
    return indexes


def _refused(bits: int, planes: int) -> Refused:
    detail = f"A PCX of {planes} planes with {bits} bits cannot be read here: save it as PNG or JPEG."
    return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail=detail)


def _decoded(data: bytes, size: int, *, encoded: bool) -> bytes:
    """The first `size` bytes of the pixels, run-length decoded if `encoded`. Raises ValueError if there are fewer."""
    body = np.frombuffer(data, np.uint8)[_HEADER:]
    if encoded:
        # A byte of at least 0xC0 is a count, unless it follows a count. So in a series of such bytes every second one is a count.
        large = body >= 0xC0
        places = np.arange(len(body), dtype=np.int32)
        starts = np.maximum.accumulate(np.where(large, 0, places + 1))  # where each series of such bytes begins
        is_count = large & ((places - starts) % 2 == 0)
        times = np.ones(len(body), np.uint8)
        times[is_count] = 0
        times[1:][is_count[:-1]] = body[:-1][is_count[:-1]] & 63
        enough = int(np.searchsorted(times.cumsum(dtype=np.int64), size)) + 1
        body = np.repeat(body[:enough], times[:enough])
    if len(body) < size:
        raise ValueError("a PCX that ends early")
    return body[:size].tobytes()


def _palette(data: bytes, version: int, depth: int) -> bytes:
    """The palette as RGB bytes; empty if the pixels are grey values."""
    if depth > 4:
        tail = data[-769:]
        greys = bytes(level for step in range(256) for level in (step, step, step))
        return tail[1:] if len(tail) == 769 and tail[0] == 12 and tail[1:] != greys else b""
    palette = data[16:64]
    return _DISPLAY if version == _WITHOUT_PALETTE or not any(palette) else palette
