"""A TIFF's directories: what the tags of the first one say, how many pages follow, and a BigTIFF as the older form. Pure."""

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
MOST_PAGES = 1_000  #: that are counted

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 317, 320, 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, ICC_PROFILE = 332, 338, 339, 34675
_OFFSETS_TO_DIRECTORIES = frozenset((330, 34665, 34853, 40965))


class MalformedTiff(ValueError):
    """The directory leads out of the file, or says nothing of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TiffDirectory:
    """One directory."""

    order: str  #: "<" or ">"
    big: bool  #: of a BigTIFF, with 64-bit offsets
    tags: dict[int, tuple[int, bytes]]  #: tag → type and the raw values
    following: int  #: offset of the next one; 0 for none

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """The values of a tag of numbers. Raises MalformedTiff if it is of another type."""
        if tag not in self.tags:
            return default
        kind, raw = self.tags[tag]
        if kind not in _NUMBERS or not raw:
            raise MalformedTiff
        return struct.unpack(f"{self.order}{len(raw) // _SIZES[kind]}{_NUMBERS[kind]}", raw)

    def number(self, tag: int, default: int) -> int:
        return int(self.numbers(tag, (default,))[0])


def first_directory(data: bytes) -> TiffDirectory:
    """Raises MalformedTiff."""
    order = "<" if data.startswith(b"II") else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    at = struct.unpack_from(order + ("8xQ" if big else "4xI"), data)[0]
    return _directory(data, at, order=order, big=big)


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
    """How many pages there are, smaller copies and masks of pages not counted; MOST_PAGES if there are more."""
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
            tag, kind = struct.unpack_from(order + "HH", data, entries)  # the lowest tag comes first
            value = struct.unpack_from(order + (_NUMBERS.get(kind, "I")), data, entries + size - inline)[0]
            if count and not (tag == NEW_SUBFILE_TYPE and int(value) & 0b101):
                found += 1
                yield at
            at = struct.unpack_from(order + ("Q" if first.big else "I"), data, entries + count * size)[0]
    except (struct.error, OverflowError):
        return


def as_classic(data: bytes, directory: TiffDirectory) -> bytes:
    """The first page of a BigTIFF behind a directory with 32-bit offsets, which more decoders read.

    The pixels stay where they are; the new directory stands at the end.
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
