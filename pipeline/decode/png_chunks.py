"""A PNG's chunks: whether they are sound, a PNG rebuilt from those that decide its pixels, and 16-bit samples in full."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from isal import isal_zlib
from PIL import Image, PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAME = re.compile(rb"[A-Za-z]{4}")
#: What the pixels are made of. Everything else is beside the picture.
_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT"))
_RESYNC = re.compile(rb"IDAT|IEND|PLTE|tRNS")
#: By colour type: Pillow's mode, and its names for the high and the low bytes of 16-bit samples.
_DEEP = {2: ("RGB", "RGB;16B", "RGB;16L"), 6: ("RGBA", "RGBA;16B", "RGBA;16L")}


def is_sound(data: bytes) -> bool:
    """Whether each chunk has the checksum it should have, up to the end chunk."""
    at = len(SIGNATURE)
    while True:
        length = int.from_bytes(data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data) or isal_zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4


def mended_png(data: bytes) -> bytes:
    """The PNG with nothing but the chunks its pixels are made of, with right checksums, and an end."""
    chunks = [_chunk(name, body) for name, body in _chunks(data) if name in _PIXELS]
    return b"".join((SIGNATURE, *chunks, _chunk(b"IEND", b"")))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and bodies. Where a chunk's length leads nowhere, the next chunk of the pixels is searched for."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        name, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4])
        follows = data[end + 8 : end + 12]
        if not _NAME.fullmatch(name) or (name not in _PIXELS and name != b"IEND" and follows and not _NAME.fullmatch(follows)):
            found = _RESYNC.search(data, at + 8)
            if not found:
                return
            at = found.start() - 4
            continue
        if name == b"IEND":
            return
        yield name, data[at + 8 : end]
        at = end + 4


def _chunk(name: bytes, body: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(body)), name, body, struct.pack(">I", isal_zlib.crc32(body, isal_zlib.crc32(name)))))


def is_deep(data: bytes) -> bool:
    """Whether its samples have 16 bits."""
    return data[24:25] == b"\x10"


def deep_samples(data: bytes) -> np.ndarray | None:
    """The 16-bit samples of a colour PNG, shape (height, width, 3 or 4); None if it is grey.

    Pillow keeps the high byte of each alone. Asked for its little-endian reading it keeps the low one, and two decodes give both.
    """
    if data[25] == 4:
        # Grey with alpha, 16 bits: the same bytes and the same filters as RGBA with 8 bits.
        header = bytearray(data[:33])
        header[24:26] = b"\x08\x06"
        header[29:33] = isal_zlib.crc32(bytes(header[12:29])).to_bytes(4)
        with Image.open(BytesIO(bytes(header) + data[33:]), formats=["PNG"]) as image:
            image.load()
            parts = np.asarray(image).astype(np.uint16)
        return (parts[..., 0::2] << 8 | parts[..., 1::2])[..., [0, 0, 0, 1]]
    if data[25] not in _DEEP:
        return None
    halves = []
    for rawmode in _DEEP[data[25]][1:]:
        with PngImagePlugin.PngImageFile(BytesIO(data)) as image:
            tile = image.tile[0]
            image.tile = [tile._replace(args=rawmode)]
            image.load()
            halves.append(np.asarray(image).astype(np.uint16))
    return halves[0] << 8 | halves[1]
