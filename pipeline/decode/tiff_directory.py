"""Reads the directories of a TIFF: the first one's tags and the number of pages. It also rewrites a BigTIFF as classic TIFF."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: struct's letters for the number types of TIFF.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {2: 1, 5: 8, 7: 1, 10: 8} | {kind: struct.calcsize("<" + letter) for kind, letter in _NUMBERS.items()}
_MOST_ENTRIES = 4096
_MOST_VALUES = 1_000_000
MOST_PAGES = 1_000  #: the count of pages stops here

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 317, 320, 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, ICC_PROFILE = 332, 338, 339, 34675
_OFFSETS_TO_DIRECTORIES = frozenset((330, 34665, 34853, 40965))


class MalformedTiff(ValueError):
    """A directory points outside the file, or lacks what is needed to read the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TiffDirectory:
    """One directory (IFD) of a TIFF."""

    order: str  #: byte order: "<" or ">"
    big: bool  #: whether the file is a BigTIFF, which has 64-bit offsets
    tags: dict[int, tuple[int, bytes]]  #: tag → type and the raw values
    following: int  #: offset of the next directory; 0 if there is none

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """The values of a numeric tag. Raises MalformedTiff if the tag has another type."""
        if tag not in self.tags:
            return default
        kind, raw = self.tags[tag]
        if kind not in _NUMBERS or not raw:
            raise MalformedTiff
        return struct.unpack(f"{self.order}{len(raw) // _SIZES[kind]}{_NUMBERS[kind]}", raw)

    def number(self, tag: int, default: int) -> int:
        return int(self.numbers(tag, (default,))[0])


def first_directory(data: bytes) -> TiffDirectory:
    """The first directory of the file. Raises MalformedTiff or struct.error if it cannot be read."""
    order = "<" if data.startswith(b"II") else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    at = struct.unpack_from(order + ("8xQ" if big else "4xI"), data)[0]
    return _directory(data, at, order=order, big=big)


def first_entries(data: bytes, most: int) -> list[tuple[int, int, int]]:
    """Tag, type and number of values of the first directory's entries, `most` at most. Raises as first_directory."""
    order = "<" if data.startswith(b"II") else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    at = struct.unpack_from(order + ("8xQ" if big else "4xI"), data)[0]
    try:
        count = min(struct.unpack_from(order + ("Q" if big else "H"), data, at)[0], most)
        places = range(at + (8 if big else 2), at + (8 + 20 * count if big else 2 + 12 * count), 20 if big else 12)
        return [struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place) for place in places]
    except (struct.error, OverflowError) as error:
        raise MalformedTiff from error


def value_bytes(kind: int, values: int) -> int:
    """How many bytes so many values of a type have. 0 if the type is unknown."""
    return _SIZES.get(kind, 0) * values


def _directory(data: bytes, at: int, *, order: str, big: bool) -> TiffDirectory:
    head, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    try:
        count = min(struct.unpack_from(order + head, data, at)[0], _MOST_ENTRIES)
        at += struct.calcsize("<" + head)
        tags: dict[int, tuple[int, bytes]] = {}
        for place in range(at, at + count * (size := 12 if not big else 20), size):
            tag, kind, values = struct.unpack_from(order + entry, data, place)
            length = _SIZES.get(kind, 0) * min(values, _MOST_VALUES)
            start = place + size - inline
            if length > inline:
                start = struct.unpack_from(order + ("Q" if big else "I"), data, start)[0]
            if length and tag not in tags and start + length <= len(data):
                tags[tag] = (kind, data[start : start + length])
        end = at + count * size
        following = struct.unpack_from(order + ("Q" if big else "I"), data, end)[0] if end + inline <= len(data) else 0
    except struct.error as error:
        raise MalformedTiff from error
    return TiffDirectory(order=order, big=big, tags=tags, following=following)


def pages(data: bytes, first: TiffDirectory) -> int:
    """The number of pages, at most MOST_PAGES. Smaller copies and masks of pages do not count."""
    return 1 + sum(1 for _ in _further_pages(data, first))


def _further_pages(data: bytes, first: TiffDirectory) -> Iterator[int]:
    order, seen, at = first.order, {0}, first.following
    head, size, inline = ("Q", 20, 8) if first.big else ("H", 12, 4)
    found = 1
    try:
        while at not in seen and len(seen) < MOST_PAGES and found < MOST_PAGES:
            seen.add(at)
            count = struct.unpack_from(order + head, data, at)[0]
            entries = at + struct.calcsize("<" + head)
            tag, kind = struct.unpack_from(order + "HH", data, entries)  # tags are sorted, so NEW_SUBFILE_TYPE is first
            value = struct.unpack_from(order + (_NUMBERS.get(kind, "I")), data, entries + size - inline)[0]
            if count and not (tag == NEW_SUBFILE_TYPE and int(value) & 0b101):
                found += 1
                yield at
            at = struct.unpack_from(order + ("Q" if first.big else "I"), data, entries + count * size)[0]
    except (struct.error, OverflowError):
        return


def as_classic(data: bytes, directory: TiffDirectory) -> bytes:
    """The first page of a BigTIFF as classic TIFF with 32-bit offsets, which more decoders read.

    The pixels keep their place, and the new directory is appended at the end.
    """
    order = directory.order
    base = (len(data) + 1) // 2 * 2
    entries, values = [], b""
    kept = {tag: (kind, raw) for tag, (kind, raw) in sorted(directory.tags.items()) if tag not in _OFFSETS_TO_DIRECTORIES}
    values_at = base + 2 + 12 * len(kept) + 4
    for tag, (kind, raw) in kept.items():
        if kind in {16, 17, 18}:
            numbers = directory.numbers(tag)
            kind, raw = 4, struct.pack(f"{order}{len(numbers)}I", *numbers)  # noqa: PLW2901 - narrowed
        count = len(raw) // _SIZES[kind]
        if len(raw) > 4:
            entries.append(struct.pack(order + "HHII", tag, kind, count, values_at + len(values)))
            values += raw + b"\0" * (len(raw) % 2)
        else:
            entries.append(struct.pack(order + "HHI", tag, kind, count) + raw.ljust(4, b"\0"))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", base)
    table = struct.pack(order + "H", len(kept)) + b"".join(entries) + bytes(4)
    return head + data[8:].ljust(base - 8, b"\0") + table + values
