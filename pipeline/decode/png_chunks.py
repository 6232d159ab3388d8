"""Works on the chunks of a PNG: checks them, rebuilds a damaged PNG from them, and reads 16-bit samples in full depth."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from isal import isal_zlib
from PIL import Image, PngImagePlugin

from pipeline.decode.too_many import limited

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAME = re.compile(rb"[A-Za-z]{4}")
#: The chunks that decide the pixels and how they are turned. A mended PNG leaves out all others.
_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf"))
_RESYNC = re.compile(rb"IDAT|IEND|PLTE|tRNS")
#: By colour type: Pillow's mode, and its names for the high and the low bytes of 16-bit samples.
_DEEP = {2: ("RGB", "RGB;16B", "RGB;16L"), 6: ("RGBA", "RGBA;16B", "RGBA;16L")}


def is_sound(data: bytes) -> bool:
    """Whether the checksum of every chunk up to the end chunk is right."""
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
    """The PNG rebuilt from the chunks that decide its pixels, with right checksums and an end chunk. Raises TooManyParts."""
    chunks = [_chunk(name, body) for name, body in limited(_chunks(data)) if name in _PIXELS]
    return b"".join((SIGNATURE, *chunks, _chunk(b"IEND", b"")))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the name and body of each chunk. If a chunk's length is wrong, it searches for the next chunk that it knows."""
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
    """Whether the PNG has 16 bits a sample."""
    return data[24:25] == b"\x10"


def deep_samples(data: bytes) -> np.ndarray | None:
    """The 16-bit samples of a PNG with colour or alpha, shape (height, width, 3 or 4); None if it is grey without alpha.

    Pillow keeps only the high byte of each sample, or only the low byte if it is told to read little-endian samples. So this
    function decodes twice and combines both bytes.
    """
    if data[25] == 4:
        # 16-bit grey with alpha has the same bytes and filters as 8-bit RGBA, so its header is changed to 8-bit RGBA.
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
