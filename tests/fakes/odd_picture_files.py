"""Makes small files in unusual variants of their formats. A decoder that knows only the usual variants reads them wrongly.

All files show the same page.
"""

from __future__ import annotations

import io
import struct
import zlib
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from tests.fakes.picture_files import encoded

WIDTH, HEIGHT = 80, 40


def page() -> Image.Image:
    """The page: red, green and blue fields on white, with a black line below. No two parts look alike by accident."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    for left, colour in ((4, (200, 30, 30)), (26, (30, 160, 60)), (48, (40, 60, 200))):
        image.paste(colour, (left, 4, left + 18, 24))
    image.paste("black", (4, 30, 60, 33))
    return image


def samples(mode: str = "RGB") -> np.ndarray:
    """The page as an array of shape (height, width, samples)."""
    return np.asarray(page().convert(mode)).reshape(HEIGHT, WIDTH, -1)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Packs unsigned values into `bits` bits each. Each row is padded to a whole byte."""
    rows = values.reshape(len(values), -1).astype(np.uint64)
    ones = (rows[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(ones.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    values: np.ndarray,
    *,
    bits: int = 8,
    photometric: int = 2,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    deflate: bool = False,
    predictor: int = 1,
    tile: int = 0,
    rows_per_strip: int = 0,
    tags: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """A TIFF from samples of shape (height, width, samples). `tags`: additional tags, each with its type and values."""
    height, width, count = values.shape
    parts = np.moveaxis(values, 2, 0)[..., None] if planar else values[None]
    segments = []
    for part in parts:
        if tile:
            down, across = -height % tile, -width % tile
            filled = np.pad(part, ((0, down), (0, across), (0, 0)))
            places = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
            segments += [_segment(filled[y : y + tile, x : x + tile], bits, order, predictor) for y, x in places]
        else:
            step = rows_per_strip or height
            segments += [_segment(part[y : y + step], bits, order, predictor) for y in range(0, height, step)]
    if deflate:
        segments = [zlib.compress(segment) for segment in segments]
    places, sizes = (324, 325) if tile else (273, 279)
    head = 16 if big else 8
    starts = np.cumsum([head, *map(len, segments)])
    kind = {"f": 3, "i": 2}.get(values.dtype.kind, 1)
    entries: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * count),
        259: (3, [8 if deflate else 1]),
        262: (3, [photometric]),
        277: (3, [count]),
        284: (3, [2 if planar else 1]),
        317: (3, [predictor]),
        339: (3, [kind] * count),
        places: (16 if big else 4, [int(start) for start in starts[:-1]]),
        sizes: (16 if big else 4, list(map(len, segments))),
    }
    entries |= {322: (4, [tile]), 323: (4, [tile])} if tile else {278: (4, [rows_per_strip or height])}
    entries |= tags or {}
    body = b"".join(segments)
    body += b"\0" * (len(body) % 2)
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    at = head + len(body)
    start = struct.pack(order + "HHQ", 8, 0, at) if big else struct.pack(order + "I", at)
    return magic + start + body + _directory(entries, at, order=order, big=big)


def _segment(part: np.ndarray, bits: int, order: str, predictor: int) -> bytes:
    if bits not in {8, 16, 32, 64}:
        return packed(part, bits)
    if predictor == 2:
        part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
    if predictor == 3:
        size, together = bits // 8, part.shape[2]
        flat = (
            part.astype(f">f{size}").reshape(len(part), -1, 1).view(np.uint8).transpose(0, 2, 1).reshape(len(part), -1, together)
        )
        return np.concatenate([flat[:, :1], np.diff(flat, axis=1)], axis=1).tobytes()
    return part.astype(part.dtype.newbyteorder(order)).tobytes()


def _directory(entries: dict[int, tuple[int, list[int]]], at: int, *, order: str, big: bool) -> bytes:
    letters = {1: "B", 3: "H", 4: "I", 16: "Q"}
    head, inline = ("Q", 8) if big else ("H", 4)
    size = 20 if big else 12
    values_at = at + struct.calcsize(head) + size * len(entries) + inline
    table, values = struct.pack(order + head, len(entries)), b""
    for tag, (kind, numbers) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(numbers)}{letters[kind]}", *numbers)
        table += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(numbers))
        if len(raw) > inline:
            table += struct.pack(order + ("Q" if big else "I"), values_at + len(values))
            values += raw + b"\0" * (len(raw) % 2)
        else:
            table += raw.ljust(inline, b"\0")
    return table + bytes(inline) + values


def psd(
    planes: np.ndarray, *, mode: int = 3, bits: int = 8, layers: int | None = None, compression: int = 0, profile: bytes = b""
) -> bytes:
    """A PSD from channels of shape (channels, height, width). `layers`: the number at the start of its layer section."""
    channels, height, width = planes.shape
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, height, width, bits, mode)
    section = b"" if layers is None else struct.pack(">Ih", 2, layers)
    rows = [packed(row[None], 1) if bits == 1 else row.astype(f">u{bits // 8}").tobytes() for plane in planes for row in plane]
    if compression == 1:
        rows = [_packbits(row) for row in rows]
        body = b"".join(struct.pack(">H", len(row)) for row in rows) + b"".join(rows)
    else:
        body = b"".join(rows) if compression == 0 else zlib.compress(b"".join(rows))
    resources = struct.pack(">4sHHI", b"8BIM", 1039, 0, len(profile)) + profile + bytes(len(profile) % 2) if profile else b""
    sections = struct.pack(">II", 0, len(resources)) + resources + struct.pack(">I", len(section)) + section
    return head + sections + struct.pack(">H", compression) + body


def cmyk_profile() -> bytes:
    """An ICC profile that shows the ink of cyan as yellow, no ink as white, and any other inks as black."""
    axis = bytes(range(256))
    white, yellow, black = bytes((255, 128, 128)), bytes((247, 106, 222)), bytes((0, 128, 128))  # in Lab
    grid = b"".join({0: white, 8: yellow}.get(corner, black) for corner in range(16))
    matrix = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + matrix + axis * 4 + grid + axis * 3
    head = struct.pack(">I4xI4s4s4s12x4s", 144 + len(table), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp").ljust(68, b"\0")
    head += struct.pack(">3i", 63190, 65536, 54061)  # the white of D50
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def _packbits(row: bytes) -> bytes:
    out = b""
    for value, run in groupby(row):
        left = len(list(run))
        while left:
            count = min(left, 128)
            out += bytes((257 - count if count > 1 else 0, value))
            left -= count
    return out


def bmp(
    body: bytes, *, bits: int, compression: int = 0, masks: tuple[int, ...] = (), palette: bytes = b"", header: int = 40
) -> bytes:
    """A BMP of the page's size, with the lowest row first. `palette`: four bytes for each colour."""
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    info += b"".join(struct.pack("<I", mask) for mask in masks)
    info = info.ljust(max(header, len(info)), b"\0")
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def pcx(planes: np.ndarray, *, bits: int, version: int = 5, palette: bytes = b"", tail: bytes = b"") -> bytes:
    """A PCX from values of shape (height, planes, width)."""
    height, count, width = planes.shape
    rows = [packed(row[None], bits) for line in planes for row in line]
    stride = (len(rows[0]) + 1) // 2 * 2
    head = struct.pack("<BBBBHHHHHH", 10, version, 1, bits, 0, 0, width - 1, height - 1, 72, 72)
    head += palette[:48].ljust(48, b"\0") + struct.pack("<BBHH", 0, count, stride, 1)
    body = bytearray()
    for row in rows:
        for value, run in groupby(row.ljust(stride, b"\0")):
            left = len(list(run))
            while left:
                part = min(left, 63)
                body += bytes((0xC0 | part, value)) if part > 1 or value >= 0xC0 else bytes((value,))
                left -= part
    return head.ljust(128, b"\0") + bytes(body) + tail


def tga(image: Image.Image) -> bytes:
    """A TGA of version 1, which has no footer."""
    return encoded(image, "TGA").removesuffix(b"\0" * 8 + b"TRUEVISION-XFILE.\0")


def dds(body: bytes, *, code: bytes = b"", flags: int = 0, bits: int = 0, masks: tuple[int, ...] = (), dxgi: int = 0) -> bytes:
    """A DDS texture of the page's size."""
    format_ = struct.pack("<II4sI", 32, flags or 4, b"DX10" if dxgi else code, bits)
    format_ += b"".join(struct.pack("<I", mask) for mask in masks).ljust(16, b"\0")
    head = struct.pack("<4sIIII", b"DDS ", 124, 0x1007, HEIGHT, WIDTH).ljust(76, b"\0") + format_
    return head.ljust(128, b"\0") + (struct.pack("<5I", dxgi, 3, 0, 1, 0) if dxgi else b"") + body


def png_chunk(name: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    check = zlib.crc32(name + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def png(values: np.ndarray, *, bits: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    """A PNG from samples of shape (height, width, samples). `before`: complete chunks to put before the pixels."""
    height, width = values.shape[:2]
    rows = values.astype(f">u{bits // 8}").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")


def lossless_jpeg(grey: np.ndarray) -> bytes:
    """A lossless JPEG (SOF3). It stores each value's difference to its left neighbour: 5 bits for the size, then the bits."""
    before = np.concatenate([np.concatenate([[128], grey[:-1, 0]])[:, None], grey[:, :-1]], axis=1).astype(int)
    bits = ""
    for difference in (grey.astype(int) - before).ravel().tolist():
        size = abs(difference).bit_length()
        bits += f"{size:05b}"
        bits += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}" if size else ""
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    height, width = grey.shape
    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    table = bytes((0, 0, 0, 0, 0, 17, *(0,) * 11, *range(17)))
    scan = bytes((1, 1, 0, 1, 0, 0))
    parts = ((0xC3, frame), (0xC4, table), (0xDA, scan))
    head = b"".join(bytes((0xFF, marker)) + struct.pack(">H", len(part) + 2) + part for marker, part in parts)
    return b"\xff\xd8" + head + body + b"\xff\xd9"


def opened(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
