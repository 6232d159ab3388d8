"""Counts the parts of a file: chunks, segments, blocks, boxes, tags. Pure, standard library only.

Decoders spend microseconds on a part, however small it is, and a part may be 2 bytes. A PNG of 1.6 million empty chunks took 14 s, and a
JPEG of empty segments over a minute. So a file with far more parts than any encoder writes is refused before it is decoded. Formats that
libraries in C take apart (WebP, JPEG XL) are not counted, because 20 MB of their smallest parts take less than a second.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from pipeline.decode.jpeg import STANDALONE, START_OF_SCAN, jpeg_markers
from pipeline.decode.tiff_directory import MalformedTiff, first_entries, value_bytes
from pipeline.decode.too_many import MAX_PARTS, TooManyParts, limited

MAX_SEGMENTS = 1_000  #: before the first scan of a JPEG; 20 MB of comments are 312 segments
MAX_EXIF = 100  #: segments of Exif in a JPEG: for each of them Pillow copies all before it
MAX_TAGS = 1_000  #: of a TIFF's first directory; encoders write up to 100
MAX_STRIPS = 100_000  #: strips or tiles of a TIFF; 30,000 rows of three planes in strips of a row are 90,000

MAX_JUNK = 250_000  #: bytes between the segments of a JPEG, or before the pixels of a PPM: Pillow reads them one by one
MAX_COMMENTS = 1_000  #: of a PPM
MAX_LINES = 100_000  #: of an XPM, which has one for each row and each colour

_TOKEN = re.compile(rb"[ \t\n\v\f\r]+|#[^\n\r]*|[^ \t\n\v\f\r#]+")
_EXIF, _PHOTOSHOP = 0xE1, 0xED  # markers of segments; Photoshop's have resources in them
_STRIP_TAGS = frozenset((273, 279, 324, 325))  # offsets and sizes of strips and of tiles


def check_parts(kind: str, data: bytes) -> None:
    """Raises TooManyParts if `data` has too many. `kind` is its format (pipeline.decode.sniff). A malformed file may pass."""
    if kind in _CHECKS:
        _CHECKS[kind](data)


def _go_through(parts: Iterator[object]) -> None:
    for _ in limited(parts):
        pass


def _png(data: bytes) -> None:
    """Counts the chunks up to the second frame of an animation, because only the first frame is decoded."""
    frames = pixels = 0
    for at in limited(_blocks(data, 8, head=8, after=4)):
        name = data[at + 4 : at + 8]
        if name == b"acTL" and not pixels:
            frames = 0 if frames else int.from_bytes(data[at + 8 : at + 12])  # of two, Pillow believes neither
        pixels += name == b"IDAT"
        if name == b"IEND" or (name == b"fcTL" and pixels and frames > 1):
            return


def _boxes(data: bytes, at: int = 0) -> None:
    """The boxes of JPEG 2000. Those of HEIF and AVIF are counted where they are read (pipeline.decode.heif)."""
    if data[:4] != b"\xff\x4f\xff\x51":  # a stream without boxes
        _go_through(_blocks(data, at, head=8, whole=True))
        header = data.find(b"jp2h")
        if header >= 0:
            _go_through(_blocks(data, header + 4, head=8, whole=True))


def _icns(data: bytes) -> None:
    _go_through(_blocks(data, 8, length=slice(4, 8), head=8, whole=True))


def _blocks(
    data: bytes,
    at: int,
    *,
    head: int,
    length: slice = slice(0, 4),
    after: int = 0,
    whole: bool = False,
) -> Iterator[int]:
    """Yields where each block starts.

    `head`: bytes before a block's content. `length`: where in the block its length stands; `whole`: it counts the head too.
    `after`: bytes after the content.
    """
    while at + head <= len(data):
        yield at
        size = int.from_bytes(data[at : at + head][length])
        at += max(size, head) if whole else head + size + after


def _gif(data: bytes) -> None:
    _go_through(_gif_blocks(data))


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Yields each block, and each part of a block, before the first frame. Bytes that belong to no block count as blocks."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    while at < len(data) and data[at] not in b"\x2c\x3b":
        yield at
        if data[at] != 0x21:
            at += 1
            continue
        at += 2
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1


def _jpeg(data: bytes) -> None:
    resources = junk = exif = 0
    end = 2
    for number, (marker, at) in enumerate(jpeg_markers(data), 1):
        junk += at - 2 - end
        if marker == START_OF_SCAN:  # libjpeg reads what follows, and the scans are counted by jpeg_scans
            break
        end = at if marker in STANDALONE else at + max(int.from_bytes(data[at : at + 2]), 2)
        if marker == _EXIF:
            exif += data.startswith(b"Exif\0\0", at + 2)
        elif marker == _PHOTOSHOP:
            resources += data.count(b"8BIM", at, end)
        if number > MAX_SEGMENTS:
            raise TooManyParts
    else:
        junk += len(data) - end
    if exif > MAX_EXIF or junk > MAX_JUNK or resources > MAX_PARTS:
        raise TooManyParts


def _ppm(data: bytes) -> None:
    if data[1:2] in b"123":  # the pixels are text too, with comments between them
        if data.count(b"#") > MAX_COMMENTS:
            raise TooManyParts
        return
    numbers = comments = 0
    for token in _TOKEN.finditer(data, 2):
        numbers += token[0][:1] not in b" \t\n\v\f\r#"
        comments += token[0][:1] == b"#"
        if numbers == 3:
            return
        if comments > MAX_COMMENTS or token.end() > MAX_JUNK:
            raise TooManyParts


def _psd(data: bytes) -> None:
    """Counts the resources, which follow the colours."""
    at = 30 + int.from_bytes(data[26:30])
    if data.count(b"8BIM", at, at + 4 + int.from_bytes(data[at : at + 4])) > MAX_PARTS:
        raise TooManyParts


def _tiff(data: bytes) -> None:
    try:
        entries = first_entries(data, MAX_TAGS + 1)
    except (MalformedTiff, struct.error):
        return
    # Values that do not fit into the file are not read. The values of several tags may be the same bytes.
    fitting = [(tag, count, size) for tag, kind, count in entries if (size := value_bytes(kind, count)) <= len(data)]
    if len(entries) > MAX_TAGS or sum(size for _, _, size in fitting) > 4 * len(data) + 64 * 1024:
        raise TooManyParts
    if any(tag in _STRIP_TAGS and count > MAX_STRIPS for tag, count, _ in fitting):
        raise TooManyParts


def _xpm(data: bytes) -> None:
    if data.count(b"\n") > MAX_LINES:
        raise TooManyParts


_CHECKS: dict[str, Callable[[bytes], None]] = {
    "GIF": _gif,
    "ICNS": _icns,
    "JPEG": _jpeg,
    "JPEG 2000": _boxes,
    "PNG": _png,
    "PPM": _ppm,
    "PSD": _psd,
    "TIFF": _tiff,
    "XPM": _xpm,
}
