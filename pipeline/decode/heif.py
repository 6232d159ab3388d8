"""The image sequences of HEIF and AVIF files, which are tracks as a film has them. It reads only the boxes and decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.decode.too_many import TooManyParts

#: The handlers of a track whose samples are pictures: an image sequence and a film. Opacity has a track with another handler.
_PICTURES = frozenset({b"pict", b"vide"})
_MOST_BOXES = 1_000  # in one box; files have about 10
_MOST_TRACKS = 100  # a sequence has one to four tracks

Box = tuple[bytes, bytes]  #: the type, four letters, and the content


def has_no_still_picture(data: bytes) -> bool:
    """Whether the file has tracks and no still picture. Only its frames could be shown."""
    kinds = {kind for kind, _ in _boxes(data)}
    return b"moov" in kinds and b"meta" not in kinds


def sequence_frames(data: bytes) -> int:
    """The number of frames in the longest track of pictures; 0 if the file has no such track."""
    tracks = [content for kind, content in _boxes(_within(data, b"moov")) if kind == b"trak"]
    return max(map(_frames, tracks[:_MOST_TRACKS]), default=0)


def _frames(track: bytes) -> int:
    media = _within(track, b"mdia")
    if _within(media, b"hdlr")[8:12] not in _PICTURES:
        return 0
    table = _within(media, b"minf", b"stbl")
    # Both boxes that hold the sizes of the samples have the number of samples at the same place.
    sizes = _within(table, b"stsz") or _within(table, b"stz2")
    return int.from_bytes(sizes[8:12])


def _within(data: bytes, *path: bytes) -> bytes:
    """The content of the first box of each type of `path`, each inside the one before; empty if one is missing."""
    for wanted in path:
        data = next((content for kind, content in _boxes(data) if kind == wanted), b"")
    return data


def _boxes(data: bytes) -> Iterator[Box]:
    """The boxes of `data` in order. A box that is longer than `data` ends with it. Raises TooManyParts."""
    at = 0
    for _ in range(_MOST_BOXES + 1):
        if at + 8 > len(data):
            return
        size, head = int.from_bytes(data[at : at + 4]), 8
        if size == 1:  # the size follows the type, in 64 bits
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        end = at + size if size >= head else len(data)  # the size 0 means that the box is the last one
        yield data[at + 4 : at + 8], data[at + head : end]
        at = end
    raise TooManyParts
