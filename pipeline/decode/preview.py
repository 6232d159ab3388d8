"""Makes a small JPEG of a picture for people to look at, in a decoder child. Also the one entry for all requests to the child."""

from __future__ import annotations

import math
from io import BytesIO

from PIL import Image

from pipeline.decode.opening import open_picture
from pipeline.decode.picture import decode
from pipeline.decode.pixels import as_png_holds_it, opaque, orientation_of, profile_of, turned_upright
from pipeline.decode.sniff import NATIVE_FORMATS
from pipeline.decode.wire import MAX_JPEG, preview_width
from pipeline.types import ItemCode, Prepared, Refused

_QUALITY = 85
_FINER = 2.0  # how much finer than the result a picture is when the costly filter begins
_KINDS = {mime: kind for kind, mime in NATIVE_FORMATS.items()}  # the formats that `decode` gives


def answer(kind: str, data: bytes) -> Prepared | Refused:
    """As `decode`. With the prefix of a preview before `kind` the result is a JPEG of at most that width, upright.

    The width and height of a preview's result are those of the upright original. The contents of `data` never raise an error.
    """
    width, kind = preview_width(kind)
    if width is None:
        return decode(kind, data)
    # What a job would refuse is refused here with the same words, and what is shown is what the model would be shown.
    outcome = decode(kind, data)
    if isinstance(outcome, Refused):
        return outcome
    shown_kind = _KINDS[outcome.mime] if outcome.data else kind
    try:
        body = _small(shown_kind, outcome.data or data, width, outcome.width)
    except MemoryError:
        return Refused(code=ItemCode.IMAGE_TOO_COMPLEX, detail="The image needs too much memory to be shown: send it smaller.")
    except Exception:  # noqa: BLE001 - as in decode()
        return Refused(code=ItemCode.IMAGE_CORRUPT, detail=f"The {kind} image cannot be shown: it is damaged or cut short.")
    if len(body) > MAX_JPEG:
        return Refused(code=ItemCode.IMAGE_TOO_COMPLEX, detail="The preview would be too large: ask for a smaller width.")
    return Prepared(
        data=body, mime=NATIVE_FORMATS["JPEG"], width=outcome.width, height=outcome.height, source_format=kind, note=outcome.note
    )


def _small(kind: str, data: bytes, width: int, original: int) -> bytes:
    """The JPEG. `original`: the width of the upright picture, in pixels."""
    opened = open_picture(kind, data)
    assert isinstance(opened, Image.Image)
    factor = min(width / original, 1.0)
    with opened as image:
        if kind == "JPEG":  # decoding at a half, a quarter or an eighth of the size is much faster
            wide, high = image.size
            image.draft(None, (math.ceil(wide * factor), math.ceil(high * factor)))
        image.load()
        shown = opaque(turned_upright(as_png_holds_it(image), orientation_of(image)))
        profile = profile_of(image, shown.mode) if shown.mode in {"L", "RGB"} else None
        shown = shown if shown.mode in {"L", "RGB"} else shown.convert("RGB")
    if shown.width > width:
        size = width, max(round(shown.height * width / shown.width), 1)
        shown = shown.resize(size, Image.Resampling.LANCZOS, reducing_gap=_FINER)
    jpeg = BytesIO()
    shown.save(jpeg, "JPEG", quality=_QUALITY, icc_profile=profile)
    return jpeg.getvalue()
