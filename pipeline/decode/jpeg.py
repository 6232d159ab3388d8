"""Reads a JPEG's headers, and rebuilds a damaged JPEG from the parts that a decoder needs. Pure, standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.decode.too_many import limited

_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_NOT_RESTART = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # a scan may have a restart for every 64 pixels
#: Markers without a length after them: reserved ones (at which libjpeg stops), restarts, start and end of image.
STANDALONE = frozenset((*range(0x01, 0xC0), *range(0xD0, 0xDA)))
START_OF_SCAN, START_OF_IMAGE, END_OF_IMAGE = 0xDA, b"\xff\xd8", b"\xff\xd9"
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))  # baseline, extended, arithmetic
_LOSSLESS = 0xC3
PROGRESSIVE = frozenset((0xC2, 0xCA))
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))
#: Frames that every model decodes: baseline, extended and progressive, with Huffman codes.
_USUAL = frozenset((0xC0, 0xC1, 0xC2))
#: Frames that Pillow decodes: the usual ones, lossless, and two with arithmetic codes.
_DECODED = _USUAL | {_LOSSLESS, 0xC9, 0xCA}
_VARIANTS = {0xCB: "lossless with arithmetic codes", 0xF7: "JPEG-LS"}
#: Segments that decide the pixels: quantization, Huffman and arithmetic tables, and the restart interval.
_TABLES = frozenset((0xDB, 0xC4, 0xCC, 0xDD))
#: Application segments that say how to show the pixels, by marker; the value is how the segment begins.
_MEANING = {0xE0: b"JFIF\0", 0xE1: b"Exif\0\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_LEAST = {0xE2: 16, 0xEE: 14}  # minimum size of such a segment in bytes, with its length field


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegFrame:
    """The coding of a JPEG, from its frame header."""

    marker: int = 0  #: 0xC0 to 0xCF, or 0xF7; 0 if there is no frame header before the first scan
    bits: int = 8  #: bits a sample
    components: int = 0
    one_scan: bool = False  #: the first scan has all components of a sequential JPEG, so libjpeg reads no other scan

    @property
    def usual(self) -> bool:
        """Whether every decoder knows the coding."""
        return self.marker in _USUAL or not self.marker

    @property
    def lossless(self) -> bool:
        return self.marker == _LOSSLESS

    @property
    def unread(self) -> str:
        """Names, for the caller, a variant that Pillow does not decode; empty if Pillow decodes it."""
        if self.marker and self.marker not in _DECODED:
            return _VARIANTS.get(self.marker, "hierarchical")
        if self.marker and self.bits != 8:
            return f"of {self.bits} bits a sample"
        return f"of {self.components} components" if self.components not in {0, 1, 3, 4} else ""


def jpeg_frame(data: bytes) -> JpegFrame:
    """Reads the headers before the first scan."""
    frame, bits, components = 0, 8, 0
    for marker, at in jpeg_markers(data):
        if marker == START_OF_SCAN:
            one = frame in _SEQUENTIAL and components > 0 and data[at + 2 : at + 3] == bytes([components])
            return JpegFrame(marker=frame, bits=bits, components=components, one_scan=one)
        if marker in STANDALONE:  # such markers do not belong in a header: reserved ones are skipped, others end it
            if marker < 0xC0:
                continue
            break
        if marker in _FRAMES and not frame:
            frame, bits, components = marker, int.from_bytes(data[at + 2 : at + 3]), int.from_bytes(data[at + 7 : at + 8])
    return JpegFrame(marker=frame, bits=bits, components=components)


def mended_jpeg(data: bytes) -> bytes:
    """Rebuilds the JPEG from the segments that decide its pixels and how to show them, without an end marker.

    It leaves out other segments, junk between segments, and everything after the end marker. The result is empty if the JPEG has
    no frame header or no scan.
    """
    parts = [START_OF_IMAGE]
    framed = False
    for marker, at in jpeg_markers(data):
        if marker == START_OF_SCAN:
            return b"".join([*parts, data[at - 2 : _end(data, at)].rstrip(b"\xff")]) if framed else b""
        segment = data[at : at + int.from_bytes(data[at : at + 2])]
        frame = marker in _FRAMES and not framed
        framed |= frame
        meaning = marker in _MEANING and segment[2:].startswith(_MEANING[marker]) and len(segment) >= _LEAST.get(marker, 0)
        if frame or meaning or marker in _TABLES:
            parts += [bytes((0xFF, marker)), segment]
    return b""


def _end(data: bytes, at: int) -> int:
    """Where the scans end: at the end marker, at a segment that is cut off, or at the end of the data. `at`: the first scan."""
    for marker, place in limited(jpeg_markers(data, at, pattern=_NOT_RESTART)):
        if marker == 0xD9 or (marker not in STANDALONE and place + max(int.from_bytes(data[place : place + 2]), 2) > len(data)):
            return place - 2
    return len(data)


def has_first_passes(data: bytes) -> bool:
    """Whether a cut JPEG has every coefficient of every component at least coarsely.

    In a progressive JPEG the scans before the last one must have them, so the cut loses only fine detail. In any other JPEG the
    last scan counts too, so the cut loses only the last rows.
    """
    frame = jpeg_frame(data)
    scans = list(_scan_parameters(data))
    if frame.marker in PROGRESSIVE:
        scans = scans[:-1]
    return _is_covered(scans, frame, coarsest=13)


def is_refined(data: bytes) -> bool:
    """Whether the scans code every coefficient to its last bit. A scan that is cut counts too."""
    return _is_covered(list(_scan_parameters(data)), jpeg_frame(data), coarsest=0)


def _is_covered(scans: list[tuple[list[int], int, int, int]], frame: JpegFrame, *, coarsest: int) -> bool:
    """Whether the scans code each coefficient of each component with at most `coarsest` low bits left out."""
    progressive = frame.marker in PROGRESSIVE
    seen: dict[int, set[int]] = {}
    for selectors, first, last, left_out in scans:
        for selector in selectors:
            covered = seen.setdefault(selector, set())
            if not progressive or left_out <= coarsest:
                covered.update(range(first, last + 1) if progressive else range(64))
    return len(seen) >= frame.components > 0 and all(len(covered) == 64 for covered in seen.values())


def _scan_parameters(data: bytes) -> Iterator[tuple[list[int], int, int, int]]:
    """Yields for each scan: its components, its first and last coefficient, and how many of their low bits it leaves out."""
    for marker, at in limited(jpeg_markers(data, pattern=_NOT_RESTART)):
        if marker == START_OF_SCAN:
            count = int.from_bytes(data[at + 2 : at + 3])
            end = at + 3 + 2 * count
            if end + 3 <= len(data):
                yield list(data[at + 3 : end : 2]), data[end], data[end + 1], data[end + 2] & 15


def jpeg_scans(data: bytes, *, most: int) -> int:
    """Counts the scans of a JPEG, so that the caller can refuse a JPEG with more than `most`.

    If a quick upper bound is at most `most`, the result is that bound. Otherwise the scans are counted exactly, and the count
    stops at `most` + 1. A baseline photo has 1 scan, a progressive one about 10. Each scan of a progressive JPEG covers the whole
    picture again, so a small file with 10,000 scans takes over 40 s to decode.
    """
    if jpeg_frame(data).one_scan:
        return 1
    at_most = data.count(b"\xff\xda")  # an upper bound: it counts scans of thumbnails too
    if at_most <= most:
        return at_most
    scans = 0
    for marker, _ in limited(jpeg_markers(data, pattern=_NOT_RESTART)):
        # Nothing after the end of the image is decoded. An end marker before the first scan ends only tables.
        if marker == 0xD9 and scans:
            break
        scans += marker == 0xDA
        if scans > most:
            break
    return scans


def jpeg_markers(data: bytes, at: int = 2, *, pattern: re.Pattern[bytes] = _MARKER) -> Iterator[tuple[int, int]]:
    """Yields each marker and the offset just after it. `at`: where the search begins. `pattern`: the markers to look for.

    As in libjpeg, it skips each segment by its length, and then searches for the next marker. So it skips garbage and
    entropy-coded data.
    """
    while found := pattern.search(data, at):
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker not in STANDALONE:
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
