"""What a JPEG's headers say, and a JPEG rebuilt from the parts that a decoder needs. Pure, standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff([\x01-\xfe])")
#: Reserved ones (at which libjpeg gives up), restarts, start and end of an image: no length follows them.
STANDALONE = frozenset((*range(0x01, 0xC0), *range(0xD0, 0xDA)))
START_OF_SCAN, START_OF_IMAGE, END_OF_IMAGE = 0xDA, b"\xff\xd8", b"\xff\xd9"
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))  # baseline, extended, arithmetic
_LOSSLESS = 0xC3
PROGRESSIVE = frozenset((0xC2, 0xCA))
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))
#: Frames that models decode as they come: baseline, extended and progressive, with Huffman codes.
_USUAL = frozenset((0xC0, 0xC1, 0xC2))
#: Those that our decoder knows beside them: lossless, and the two with arithmetic codes.
_DECODED = _USUAL | {_LOSSLESS, 0xC9, 0xCA}
_VARIANTS = {0xCB: "lossless with arithmetic codes", 0xF7: "JPEG-LS"}
#: Segments that decide the pixels: quantization, Huffman and arithmetic tables, restarts, and the frame itself.
_TABLES = frozenset((0xDB, 0xC4, 0xCC, 0xDD))
#: Application segments that say how the pixels are meant, by marker and beginning.
_MEANING = {0xE0: b"JFIF\0", 0xE1: b"Exif\0\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_LEAST = {0xE2: 16, 0xEE: 14}  # bytes of such a segment, with its length


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegFrame:
    """What the frame header says of the coding."""

    marker: int = 0  #: 0xC0 to 0xCF, or 0xF7; 0 if there is no frame header before the first scan
    bits: int = 8  #: a sample
    components: int = 0
    one_scan: bool = False  #: one scan of all components, after which libjpeg takes no other

    @property
    def usual(self) -> bool:
        """Whether every decoder knows the coding."""
        return self.marker in _USUAL or not self.marker

    @property
    def lossless(self) -> bool:
        return self.marker == _LOSSLESS

    @property
    def unread(self) -> str:
        """What the caller is told of a variant that our decoder does not know; empty if it does."""
        if self.marker and self.marker not in _DECODED:
            return _VARIANTS.get(self.marker, "hierarchical")
        if self.marker and self.bits != 8:
            return f"of {self.bits} bits a sample"
        return f"of {self.components} components" if self.components not in {0, 1, 3, 4} else ""


def jpeg_frame(data: bytes) -> JpegFrame:
    """What the headers before the first scan say."""
    frame, bits, components = 0, 8, 0
    for marker, at in jpeg_markers(data):
        if marker == START_OF_SCAN:
            one = frame in _SEQUENTIAL and components > 0 and data[at + 2 : at + 3] == bytes([components])
            return JpegFrame(marker=frame, bits=bits, components=components, one_scan=one)
        if marker in STANDALONE:  # no such thing belongs in a header: nothing behind it is believed
            if marker < 0xC0:
                continue
            break
        if marker in _FRAMES and not frame:
            frame, bits, components = marker, int.from_bytes(data[at + 2 : at + 3]), int.from_bytes(data[at + 7 : at + 8])
    return JpegFrame(marker=frame, bits=bits, components=components)


def mended_jpeg(data: bytes) -> bytes:
    """The JPEG with nothing but what decides its pixels and how they are meant, and without an end marker.

    Junk between segments, segments with a wrong length and everything behind the end marker are left out. Empty if there is no
    frame or no scan.
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
    """Where the end marker stands that follows the scan which begins at `at`, or a segment that is cut off, or the data ends."""
    for marker, place in jpeg_markers(data, at):
        if marker == 0xD9 or (marker not in STANDALONE and place + max(int.from_bytes(data[place : place + 2]), 2) > len(data)):
            return place - 2
    return len(data)


def has_first_passes(data: bytes) -> bool:
    """Whether every coefficient of every component was coded at least coarsely before the last scan that is there began, or that
    scan is the only one it needs. What a cut-off scan leaves out is then fine detail, or the last rows.
    """
    frame = jpeg_frame(data)
    scans = list(_scan_parameters(data))
    if frame.marker in PROGRESSIVE:
        scans = scans[:-1]
    return _is_covered(scans, frame, coarsest=13)


def is_refined(data: bytes) -> bool:
    """Whether scans are there, whole or not, that code every coefficient to its last bit."""
    return _is_covered(list(_scan_parameters(data)), jpeg_frame(data), coarsest=0)


def _is_covered(scans: list[tuple[list[int], int, int, int]], frame: JpegFrame, *, coarsest: int) -> bool:
    """Whether the scans code each coefficient of each component, with at most `coarsest` bits left out."""
    progressive = frame.marker in PROGRESSIVE
    seen: dict[int, set[int]] = {}
    for selectors, first, last, left_out in scans:
        for selector in selectors:
            covered = seen.setdefault(selector, set())
            if not progressive or left_out <= coarsest:
                covered.update(range(first, last + 1) if progressive else range(64))
    return len(seen) >= frame.components > 0 and all(len(covered) == 64 for covered in seen.values())


def _scan_parameters(data: bytes) -> Iterator[tuple[list[int], int, int, int]]:
    """Of each scan: its components, its first and last coefficient, and how many of their lowest bits it leaves out."""
    for marker, at in jpeg_markers(data):
        if marker == START_OF_SCAN:
            count = int.from_bytes(data[at + 2 : at + 3])
            end = at + 3 + 2 * count
            if end + 3 <= len(data):
                yield list(data[at + 3 : end : 2]), data[end], data[end + 1], data[end + 2] & 15


def jpeg_scans(data: bytes, *, most: int) -> int:
    """How many scans a JPEG has at most; counted exactly, up to one above `most`, only if that may be more than `most`. A baseline photo has 1, a progressive one about 10.

    Each scan of a progressive JPEG passes over the whole picture again: 10,000 of them in a small file take over 40 s.
    """
    if jpeg_frame(data).one_scan:
        return 1
    at_most = data.count(b"\xff\xda")  # scan markers, and perhaps some in thumbnails: never fewer than the scans
    if at_most <= most:
        return at_most
    scans = 0
    for marker, _ in jpeg_markers(data):
        if marker == 0xD9 and scans:  # the end of the image: what follows is not decoded, but for what follows mere tables
            break
        scans += marker == 0xDA
        if scans > most:
            break
    return scans


def jpeg_markers(data: bytes, at: int = 2) -> Iterator[tuple[int, int]]:
    """A JPEG's markers and where what follows each begins, as libjpeg reads: from marker to marker, over the lengths; garbage and
    entropy-coded data between them are skipped. `at`: where the search begins.
    """
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker not in STANDALONE:
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
