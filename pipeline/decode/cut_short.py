"""Reads pictures whose file ends early, and counts the missing rows.

A cut file does not say which rows are missing. So the picture is decoded twice, with different filler in place of the missing
data. The rows that differ between the two results are the missing ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from pipeline.decode.jpeg import END_OF_IMAGE, PROGRESSIVE, has_first_passes, is_refined, jpeg_frame
from pipeline.notes import NoteCode, note

#: Appended to a cut JPEG, it decodes to other pixels than libjpeg's own filler. It has no 0xFF, so it holds no marker.
_NOISE = bytes(random.Random(0).randrange(255) for _ in range(64 * 1024))  # noqa: S311 - not a secret


class TooMuchMissing(Exception):
    """Over half of the rows are missing, or the file lacks the headers or first scans that it needs."""


def whole_jpeg(mended: bytes) -> tuple[bytes, str]:
    """Adds the end marker to the result of mended_jpeg. Gives the JPEG and a note of the missing last rows, empty if none are.

    If a progressive JPEG is cut in its last scans, no row is missing: the note says how many rows have little detail. Raises
    TooMuchMissing, and Pillow's errors if the JPEG cannot be decoded.
    """
    if not mended or not has_first_passes(mended):
        raise TooMuchMissing
    plain, noisy = (_pixels(mended + tail + END_OF_IMAGE) for tail in (b"", _NOISE))
    missing = _differing_rows(plain, noisy)
    coarse = jpeg_frame(mended).marker in PROGRESSIVE
    if coarse and not is_refined(mended):
        missing = plain.shape[0]
    if not coarse and 2 * missing > plain.shape[0]:
        raise TooMuchMissing
    return mended + END_OF_IMAGE, note_of_missing(missing, plain.shape[0], coarse=coarse)


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        return np.asarray(image).reshape(image.height, -1)


def load_what_is_there(open_image: Callable[[], Image.Image]) -> tuple[Image.Image, str]:
    """The loaded picture and a note of the missing rows, empty if none are. Each call of `open_image` opens the file again.

    Raises TooMuchMissing, and Pillow's errors if the picture cannot be decoded.
    """
    images = []
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        for value in (0, 255):
            image = open_image()
            # Pillow decodes into this image and leaves the missing pixels unchanged.
            bands = len(image.getbands())
            image.im = Image.new(image.mode, image.size, (value,) * bands if bands > 1 else value).im
            image.load()
            images.append(image)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    first, second = images
    pixels, others = (np.asarray(image).reshape(image.height, -1) for image in images)
    differing = (pixels != others).any(axis=1)
    missing = int(differing.sum())  # in an interlaced picture the missing rows are not adjacent
    if 2 * missing > first.height:
        raise TooMuchMissing
    second.close()
    return first, note_of_missing(missing, first.height, at_the_foot=bool(differing[first.height - missing :].all()))


def note_of_missing(missing: int, height: int, *, coarse: bool = False, at_the_foot: bool = True) -> str:
    """The note for `missing` of `height` rows; empty if no row is missing.

    `coarse`: the rows are there with little detail. `at_the_foot`: they are the last rows.
    """
    if not missing:
        return ""
    how = "are only there coarsely" if coarse else "are missing"
    return note(NoteCode.ROWS_MISSING, f"{'the last ' if at_the_foot else ''}{missing} of {height} rows {how}")


def _differing_rows(one: np.ndarray, other: np.ndarray) -> int:
    """The number of rows from the first one that differs to the last row."""
    differing = np.flatnonzero((one != other).any(axis=1))
    return len(one) - int(differing[0]) if differing.size else 0
