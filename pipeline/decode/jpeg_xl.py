"""JPEG XL to a Pillow picture, for the decoder child (pylibjxl: libjxl in a wheel, of which Pillow has none)."""

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
    """The picture, 8 bits a sample, turned as it is to be seen. Raises what pylibjxl raises of what it cannot decode.

    libjxl itself scales deeper samples, turns the picture and converts what was compressed in its own colour space.
    """
    try:
        codec = _codec()
    except ImportError:  # no wheel for Linux on ARM
        return _NO_DECODER
    facts = codec.probe(data)
    size = (facts["width"], facts["height"])
    if math.prod(size) > MAX_PIXELS or max(size) > MAX_SIDE:
        raise Image.DecompressionBombError
    if facts["have_animation"]:  # pylibjxl decodes every frame and gives the last
        return _ANIMATED
    pixels, beside = codec.decode(data, metadata=True)
    image = Image.fromarray(pixels)
    if "icc" in beside:
        image.info["icc_profile"] = beside["icc"]
    return image


@cache
def _codec() -> pylibjxl.JXL:
    import pylibjxl

    return pylibjxl.JXL(threads=1, pool_size=1)  # one child a core is the parallelism there is
