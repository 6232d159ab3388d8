"""Reads BMP, because Pillow misreads or refuses some bitmaps: unusual colour masks, and run-length codes with gaps."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.decode.cut_short import note_of_missing
from pipeline.decode.pixels import MISSING
from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

_FILE_HEADER = 14
_RGB, _RLE8, _RLE4, _BITFIELDS, _JPEG, _PNG, _ALPHA_BITFIELDS = range(7)
_CORE = 12  # bytes: the header of OS/2 1, which has 16-bit sizes and palettes with three bytes a colour
_OS2 = frozenset((16, 64))  # bytes: headers of OS/2 2, in which compressions 3 and 4 have other meanings
_NARROW = {16: (0x7C00, 0x3E0, 0x1F, 0), 24: (0xFF0000, 0xFF00, 0xFF, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


#: A series of runs that is long enough for numpy to be quicker than a loop. It is cut, so that numpy's arrays stay small.
_MANY_RUNS = re.compile(rb"(?:[\x01-\xff][\x00-\xff]){32,4096}", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """The fields of the header that follows the file header."""

    size: int  #: bytes of this header
    width: int
    height: int
    upward: bool  #: whether the lowest row comes first
    bits: int  #: bits a pixel
    compression: int
    colours: int  #: number of colours in the palette; 0 if the header does not say


def open_bmp(data: bytes) -> Image.Image | Refused:
    """The picture. Raises ValueError or struct.error if the file is damaged."""
    header = _header(data)
    if header.width * header.height > MAX_PIXELS or max(header.width, header.height) > MAX_SIDE:
        raise Image.DecompressionBombError
    if not header.width or not header.height:
        raise ValueError("a bitmap without a size")
    if header.size in _OS2 and header.compression in {3, 4}:
        return _refused("of OS/2 compressed as a fax or with 24-bit runs")
    if header.compression in {_JPEG, _PNG}:
        return _refused("that holds a JPEG or PNG")
    offset = struct.unpack_from("<I", data, 10)[0]
    if header.bits <= 8 and offset <= _FILE_HEADER + header.size:
        # Some writers leave the palette out of the sum. Viewers look for the pixels behind it then.
        offset = _FILE_HEADER + header.size + _colours_of(header) * _bytes_a_colour(header)
    if header.bits in {1, 2, 4, 8}:
        image, missing = _of_palette(data, header, offset)
    elif header.bits in _NARROW:
        image, missing = _of_masks(data, header, offset)
    else:
        return _refused(f"of {header.bits} bits a pixel")
    if 2 * missing > header.height:
        raise ValueError("a bitmap that ends early")
    image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if header.upward else image
    image.info[MISSING] = note_of_missing(missing, header.height, at_the_foot=not header.upward)
    return image


def _refused(what: str) -> Refused:
    return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail=f"A BMP {what} cannot be read here: save it as PNG or JPEG.")


def _header(data: bytes) -> _Header:
    (size,) = struct.unpack_from("<I", data, _FILE_HEADER)
    if size == _CORE:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
        return _Header(size=size, width=width, height=height, upward=True, bits=bits, compression=_RGB, colours=0)
    width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    compression = struct.unpack_from("<I", data, 30)[0] if size > 16 else _RGB
    colours = struct.unpack_from("<I", data, 46)[0] if size >= 40 else 0
    return _Header(
        size=size,
        width=max(width, 0),
        height=abs(height),
        upward=height > 0,
        bits=bits,
        compression=compression,
        colours=colours,
    )


def _rows(data: bytes, header: _Header, offset: int) -> tuple[np.ndarray, int]:
    """The bytes of each row without padding, shape (height, bytes), and how many rows of the file are missing at its end.

    The file pads each row to a multiple of four bytes. The padding of the last row may be missing.
    """
    used, stride = (header.width * header.bits + 7) // 8, (header.width * header.bits + 31) // 32 * 4
    body = data[offset : offset + stride * header.height].ljust(stride * header.height, b"\0")
    there = max(0, len(data) - offset + stride - used) // stride
    return np.frombuffer(body, np.uint8).reshape(header.height, stride)[:, :used], max(0, header.height - there)


def _of_palette(data: bytes, header: _Header, offset: int) -> tuple[Image.Image, int]:
    """The picture, and how many of its rows are missing."""
    start = _FILE_HEADER + header.size
    if header.size == 40 and header.compression == _BITFIELDS:
        start += 12
    each, most = _bytes_a_colour(header), _colours_of(header)
    table = np.frombuffer(data[start : min(start + each * most, max(offset, start))], np.uint8)
    table = table[: len(table) // each * each].reshape(-1, each)[:, 2::-1]
    if header.compression in {_RLE8, _RLE4}:
        indexes, missing = _runs(data[offset:], header)
    else:
        rows, missing = _rows(data, header, offset)
        indexes = _small(rows, header)
    used = int(indexes.max(initial=0)) + 1
    if used > len(table):
        table = np.concatenate([table, np.zeros((used - len(table), 3), np.uint8)])
    image = Image.fromarray(indexes)
    if len(table) == 256 and (table == np.arange(256, dtype=np.uint8)[:, None]).all():
        return image, missing
    if header.bits == 1 and table[:2].tolist() == [[0, 0, 0], [255, 255, 255]]:
        return Image.fromarray(indexes.astype(bool)), missing
    image.putpalette(np.ascontiguousarray(table[:256]).tobytes())
    return image, missing


def _bytes_a_colour(header: _Header) -> int:
    return 3 if header.size == _CORE else 4


def _colours_of(header: _Header) -> int:
    """How many colours the palette has."""
    return header.colours if 0 < header.colours <= 1 << header.bits else 1 << header.bits


def _small(rows: np.ndarray, header: _Header) -> np.ndarray:
    if header.bits == 8:
        return np.ascontiguousarray(rows)
    each = 8 // header.bits
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)
    split = (rows[:, :, None] >> shifts) & ((1 << header.bits) - 1)
    return np.ascontiguousarray(split.reshape(len(rows), rows.shape[1] * each)[:, : header.width])


def _runs(body: bytes, header: _Header) -> tuple[np.ndarray, int]:
    """Decodes run-length codes to palette indexes. Gives them, and how many rows are missing because the codes end early.

    Pixels that jumps and early ends of rows skip get the first colour.
    """
    width, height = header.width, header.height
    indexes = bytearray(width * height)
    four = header.compression == _RLE4
    x = y = at = missing = 0
    while y < height and at + 1 < len(body):
        if series := _MANY_RUNS.match(body, at):
            pixels = _series(series[0], four=four)
            at = series.end()
        elif count := body[at]:
            value = body[at + 1]
            pixels = (bytes((value >> 4, value & 15)) * ((count + 1) // 2))[:count] if four else bytes((value,)) * count
            at += 2
        else:
            value = body[at + 1]
            at += 2
            if value == 0:
                x, y = 0, y + 1
                continue
            if value == 1:
                break
            if value == 2:
                if at + 1 >= len(body):
                    break
                x, y = x + body[at], y + body[at + 1]
                at += 2
                continue
            length = (value + 1) // 2 if four else value
            raw = body[at : at + length]
            at += length + length % 2
            pixels = bytes(part for byte in raw for part in (byte >> 4, byte & 15))[:value] if four else raw
        fits = max(0, min(len(pixels), width - x))
        place = y * width + x
        indexes[place : place + fits] = pixels[:fits]
        x += fits
    else:
        missing = max(0, height - y - (x >= width))  # the mark of the end may be missing
    return np.frombuffer(indexes, np.uint8).reshape(height, width), missing


def _series(codes: bytes, *, four: bool) -> bytes:
    """The pixels of many runs: each has a byte with its length and a byte with its colour, or its two colours if `four`."""
    pairs = np.frombuffer(codes, np.uint8).reshape(-1, 2)
    pixels = np.repeat(pairs[:, 1], pairs[:, 0])
    if four:
        ends = pairs[:, 0].cumsum(dtype=np.int64)
        within = np.arange(len(pixels)) - np.repeat(ends - pairs[:, 0], pairs[:, 0])  # the place of each pixel in its run
        pixels = np.where(within & 1, pixels & 15, pixels >> 4)
    return pixels.astype(np.uint8).tobytes()


def _of_masks(data: bytes, header: _Header, offset: int) -> tuple[Image.Image, int]:
    """The picture, and how many of its rows are missing."""
    rows, missing = _rows(data, header, offset)
    masks = _masks(data, header)
    if masks[:3] == (0xFF0000, 0xFF00, 0xFF) and masks[3] in {0, 0xFF000000}:
        raw = {24: "BGR", 32: "BGRA" if masks[3] else "BGRX"}[header.bits]
        mode = "RGBA" if masks[3] else "RGB"
        return Image.frombytes(mode, (header.width, header.height), np.ascontiguousarray(rows).tobytes(), "raw", raw), missing
    if header.bits == 24:
        padded = np.zeros((header.height, header.width, 4), np.uint8)
        padded[..., :3] = rows.reshape(header.height, header.width, 3)
        values = padded.view("<u4")[..., 0]
    else:
        values = np.ascontiguousarray(rows).view(f"<u{header.bits // 8}").astype(np.uint32)
    bands = [masked(values, mask) for mask in (masks if masks[3] else masks[:3])]
    return Image.fromarray(np.stack(bands, axis=2)), missing


def _masks(data: bytes, header: _Header) -> tuple[int, int, int, int]:
    """The bit masks of red, green, blue and alpha in a pixel."""
    if header.compression not in {_BITFIELDS, _ALPHA_BITFIELDS}:
        return _NARROW[header.bits]
    red, green, blue = struct.unpack_from("<3I", data, 54)
    with_alpha = header.size >= 56 or header.compression == _ALPHA_BITFIELDS
    alpha = struct.unpack_from("<I", data, 66)[0] if with_alpha else 0
    if not (red or green or blue):
        return _NARROW[header.bits]
    return red, green, blue, alpha


def masked(values: np.ndarray, mask: int) -> np.ndarray:
    """The bits of `mask` in each of the 32-bit `values`, scaled to bytes."""
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    return (((values & np.uint32(mask)) >> np.uint32(shift)).astype(np.float32) * (255 / most) + 0.5).astype(np.uint8)
