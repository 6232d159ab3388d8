"""Pictures whose file ends early: what is there is read, and the rows that are not are counted.

Nothing in a file says where its pixels end, so each is decoded twice, with two different things in the place of what is missing:
the rows in which the results differ are the missing ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from pipeline.decode.jpeg import END_OF_IMAGE, PROGRESSIVE, has_first_passes, is_refined, jpeg_frame
from pipeline.notes import NoteCode, note

#: Behind the end of a JPEG: decodes to pixels unlike those that libjpeg makes of nothing. Without 0xFF, so without a marker.
_NOISE = bytes(random.Random(0).randrange(255) for _ in range(64 * 1024))  # noqa: S311 - not a secret


class TooMuchMissing(Exception):
    """Over half of the rows are not there."""


def whole_jpeg(mended: bytes) -> tuple[bytes, str]:
    """A JPEG without an end marker (mended_jpeg) with one, and the note how many rows at its foot are missing, if any are. Of a
    progressive JPEG cut in its last scans they are there, but coarsely.

    Raises TooMuchMissing, and what Pillow raises of a JPEG that cannot be decoded.
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
    """The picture, loaded, and the note how many rows at its foot are missing, if any are. `open_image` opens it anew.

    Raises TooMuchMissing, and what Pillow raises of a picture that cannot be decoded.
    """
    images = []
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        for value in (0, 255):
            image = open_image()
            # Pillow decodes into what lies here, and leaves as it is what the file does not have.
            bands = len(image.getbands())
            image.im = Image.new(image.mode, image.size, (value,) * bands if bands > 1 else value).im
            image.load()
            images.append(image)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    first, second = images
    pixels, others = (np.asarray(image).reshape(image.height, -1) for image in images)
    differing = (pixels != others).any(axis=1)
    missing = int(differing.sum())  # of an interlaced picture they do not follow each other
    if 2 * missing > first.height:
        raise TooMuchMissing
    second.close()
    return first, note_of_missing(missing, first.height, at_the_foot=bool(differing[first.height - missing :].all()))


def note_of_missing(missing: int, height: int, *, coarse: bool = False, at_the_foot: bool = True) -> str:
    """Empty if no row is missing."""
    if not missing:
        return ""
    how = "are only there coarsely" if coarse else "are missing"
    return note(NoteCode.ROWS_MISSING, f"{'the last ' if at_the_foot else ''}{missing} of {height} rows {how}")


def _differing_rows(one: np.ndarray, other: np.ndarray) -> int:
    """Rows from the first one that differs to the foot."""
    differing = np.flatnonzero((one != other).any(axis=1))
    return len(one) - int(differing[0]) if differing.size else 0
