"""What a decoded picture's pixels become, so that a PNG or JPEG holds them and they look as they should."""

from __future__ import annotations

from PIL import Image

#: What PNG can hold of Pillow's modes, as 8 bits a sample or fewer.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_WITH_ALPHA = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
#: The colour space an ICC profile is of (its bytes 16 to 19) for the modes it may be kept with.
_PROFILE_SPACES = {"1": b"GRAY", "L": b"GRAY", "LA": b"GRAY", "P": b"RGB ", "RGB": b"RGB ", "RGBA": b"RGB "}
_BAND = 256  # rows rescaled at a time: bounds the memory of 64-bit arithmetic
_EXIF_ORIENTATION = 0x0112
ON_ITS_SIDE = frozenset({5, 6, 7, 8})  # orientations that swap width and height
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_PHOTOMETRIC = 262  # 0: white is zero


def orientation_of(image: Image.Image) -> int:
    """As EXIF numbers it: 1, as it stands, to 8."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow raises many; a damaged tag is no reason to refuse a picture that decodes
        return 1


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def as_png_holds_it(image: Image.Image) -> Image.Image:
    """In a mode that PNG has, of 8 bits a sample or fewer."""
    if image.mode in _PNG_MODES:
        return image
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):  # of which Pillow makes 0 to 65535
        return _rescaled_16(image)
    if image.mode in {"I", "F"}:
        return _rescaled_32(image)
    return image.convert(_WITH_ALPHA.get(image.mode, "RGB"))


def _rescaled_16(image: Image.Image) -> Image.Image:
    """8-bit grey of 16-bit grey: 65535 becomes 255. (Pillow's convert clips instead: nearly all turns white.)

    A picture whose lightest value is under 4096 holds the 8 to 12 bits of a sensor in 16: its own bits are the scale, for
    else it would be all but black.
    """
    import numpy as np

    values = np.asarray(image)
    lightest = int(values.max())
    white = 65535 if lightest >= 4096 else (1 << max(lightest.bit_length(), 8)) - 1
    table = ((np.arange(65536) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:  # Pillow turns only 8 bits and fewer around
        table = 255 - table
    return Image.fromarray(table[values])


def _rescaled_32(image: Image.Image) -> Image.Image:
    """8-bit grey of 32-bit integers or floats, whose range no header tells: the least finite becomes 0, the greatest 255.

    Infinities become the end they are beyond, what is no number the least; a picture of one value becomes black.
    """
    import numpy as np

    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    del finite
    scale = 255 / (greatest - least) if greatest > least else 0.0
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, values.shape[0], _BAND):
        band = values[top : top + _BAND].astype(np.float64)
        np.nan_to_num(band, copy=False, nan=least, posinf=greatest, neginf=least)
        grey[top : top + _BAND] = np.rint((band - least) * scale)
    return Image.fromarray(grey)


def profile_of(image: Image.Image, mode: str) -> bytes | None:
    """The picture's ICC profile, where it still speaks of the pixels: not a CMYK profile beside RGB."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile[16:20] == _PROFILE_SPACES.get(mode) else None


def on_white(image: Image.Image) -> Image.Image:
    """What a JPEG has no place for: what shows through is white, as paper is."""
    full = image.convert("RGBA")
    paper = Image.new("RGB", full.size, "white")
    paper.paste(full, mask=full.getchannel("A"))
    return paper
