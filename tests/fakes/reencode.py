"""Makes JPEGs in this process, without a child process. tests/contract/test_reencode.py also runs its tests on the real part."""

from __future__ import annotations

import io
from dataclasses import replace

import pillow_heif
from PIL import Image, ImageOps

from pipeline.types import ItemCode, Prepared, Refused

MOST_BYTES = 14_000_000  #: most bytes of a JPEG (pipeline.ports.Reencode)

pillow_heif.register_heif_opener()


def fake_reencode(data: bytes) -> Prepared | Refused:
    """Implements pipeline.ports.Reencode with Pillow. Use it only for pictures that a test made, because it has no protection."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = str(image.format)
            shown = _without_alpha(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError):
        if not data:
            return Refused(code=ItemCode.IMAGE_EMPTY, detail="There are no bytes in this image.")
        return Refused(code=ItemCode.IMAGE_CORRUPT, detail="The image cannot be decoded.")
    while True:
        jpeg = io.BytesIO()
        shown.save(jpeg, "JPEG", quality=90)
        if jpeg.tell() <= MOST_BYTES:
            return Prepared(data=jpeg.getvalue(), mime="image/jpeg", width=shown.width, height=shown.height, source_format=kind)
        shown = shown.reduce(2)


def fake_preview(data: bytes, *, width: int) -> Prepared | Refused:
    """Implements pipeline.ports.Preview with Pillow. The picture b"img…" of other fakes is a pixel."""
    if data.startswith(b"img"):
        pixel = io.BytesIO()
        Image.new("L", (1, 1)).save(pixel, "PNG")
        data = pixel.getvalue()
    became = fake_reencode(data)
    if isinstance(became, Refused) or became.width <= width:
        return became
    with Image.open(io.BytesIO(became.data)) as image:
        small = io.BytesIO()
        image.resize((width, max(round(image.height * width / image.width), 1))).save(small, "JPEG")
    return replace(became, data=small.getvalue())


def _without_alpha(image: Image.Image) -> Image.Image:
    """Converts the picture to a mode that JPEG supports. Transparent pixels become white."""
    if image.mode in {"F", "I;16"}:
        return image.convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    full = image.convert("RGBA")
    paper = Image.new("RGB", full.size, "white")
    paper.paste(full, mask=full.getchannel("A"))
    return paper
