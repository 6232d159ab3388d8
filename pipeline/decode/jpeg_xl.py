"""Opens JPEG XL as a Pillow picture. It uses pylibjxl, a wheel with libjxl, because Pillow does not read JPEG XL."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

if TYPE_CHECKING:
    import pylibjxl

_ANIMATED = Refused(
    code=ItemCode.UNSUPPORTED_FORMAT, detail="This JPEG XL is an animation: send the frame you mean, as PNG or JPEG."
)
_NO_DECODER = Refused(
    code=ItemCode.UNSUPPORTED_FORMAT, detail="JPEG XL cannot be decoded on this machine: export it as PNG or JPEG."
)


def open_jpeg_xl(data: bytes) -> Image.Image | Refused:
    """The picture, upright, with 8 bits a sample. Raises pylibjxl's errors if the data cannot be decoded.

    libjxl itself scales deeper samples, turns the picture upright and converts from its internal colour space.
    """
    try:
        codec = _codec()
    except ImportError:  # pylibjxl has no wheel for Linux on ARM
        return _NO_DECODER
    facts = codec.probe(data)
    size = (facts["width"], facts["height"])
    if math.prod(size) > MAX_PIXELS or max(size) > MAX_SIDE:
        raise Image.DecompressionBombError
    if facts["have_animation"]:  # pylibjxl would decode every frame and return the last
        return _ANIMATED
    pixels, beside = codec.decode(data, metadata=True)
    image = Image.fromarray(pixels)
    if "icc" in beside:
        image.info["icc_profile"] = beside["icc"]
    return image


@cache
def _codec() -> pylibjxl.JXL:
    import pylibjxl

    return pylibjxl.JXL(threads=1, pool_size=1)  # each core has its own child, so one thread is enough
