"""What a decoded picture's pixels become, so that a PNG or JPEG holds them and they look as they should."""

from __future__ import annotations

from typing import Any

from PIL import Image

#: What PNG can hold of Pillow's modes, as 8 bits a sample or fewer.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_WITH_ALPHA = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
#: The colour space an ICC profile is of (its bytes 16 to 19) for the modes it may be kept with.
_PROFILE_SPACES = {"1": b"GRAY", "L": b"GRAY", "LA": b"GRAY", "P": b"RGB ", "RGB": b"RGB ", "RGBA": b"RGB "}
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
_XMP = ("xmp", "XML:com.adobe.xmp")
_WHITE = 255
_GROUNDS = (_WHITE, 0, 128)  # greys, the one that is preferred first
_CLEAR, _SOLID = 64, 128  # opacities: below the first nothing is seen, from the second on something is
_CONTRAST = 64  # of 255: what differs less from its ground in every colour is hard to see
_FEW_LOST = 0.2  # of the border pixels: highlights and outlines
_THIN = 0.15  # of the light pixels border on clear ones: they are lines or letters
_ALL_LIGHT = 0.95  # of what is seen: then nothing would be left of it on white


def orientation_of(image: Image.Image) -> int:
    """As EXIF numbers it: 1, as it stands, to 8. A tag in XMP is passed over, as every viewer does."""
    for name in _XMP:
        image.info.pop(name, None)
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow raises many; a damaged tag is no reason to refuse a picture that decodes
        return 1


def is_turned(orientation: int) -> bool:
    """Whether the picture is to be seen otherwise than it is stored."""
    return orientation in _UPRIGHT


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def as_png_holds_it(image: Image.Image) -> Image.Image:
    """In a mode that PNG has, of 8 bits a sample or fewer."""
    if image.mode in _PNG_MODES:
        return image
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):  # of which Pillow makes 0 to 65535
        return _grey_of(image, bits=16)
    if image.mode in {"I", "F"}:
        return _grey_of(image, bits=32)
    return image.convert(_WITH_ALPHA.get(image.mode, "RGB"))


def _grey_of(image: Image.Image, *, bits: int) -> Image.Image:
    """8-bit grey of deeper grey. (Pillow's convert clips instead: nearly all turns white.)"""
    import numpy as np

    from pipeline.decode.depth import as_bytes

    values = np.asarray(image)
    grey = as_bytes(values.astype(np.uint16, copy=False) if bits == 16 else values, bits=bits)
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:  # Pillow turns only 8 bits and fewer around
        grey = 255 - grey
    return Image.fromarray(grey)


def profile_of(image: Image.Image, mode: str) -> bytes | None:
    """The picture's ICC profile, where it still speaks of the pixels: not a CMYK profile beside RGB."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile[16:20] == _PROFILE_SPACES.get(mode) else None


def opaque(image: Image.Image) -> Image.Image:
    """The picture, of a mode that PNG has, without transparency: what shows through becomes a ground that contrasts with it.

    A model lays a picture on a ground of its own choice, and the text of some is lost on it. An opacity that is 0 everywhere was
    never meant (screenshots and games write such), and one that is full everywhere says nothing: both are left out.
    """
    if "A" not in image.mode and "transparency" not in image.info:
        return image
    full = image.convert("RGBA")
    least, most = full.getchannel("A").getextrema()
    if least == 255 or most == 0:
        plain = image.convert("L") if image.mode == "LA" else image if image.mode in {"1", "L", "P"} else full.convert("RGB")
        plain.info.pop("transparency", None)
        return plain
    paper = Image.new("RGB", full.size, (_ground_of(full),) * 3)
    paper.paste(full, mask=full.getchannel("A"))
    return paper.convert("L") if image.mode == "LA" else paper


def _ground_of(image: Image.Image) -> int:
    """The grey from which what borders on the transparent parts of an RGBA picture stands out best; white if it may be any."""
    import numpy as np

    pixels = np.asarray(image)
    colours, alpha = pixels[..., :3], pixels[..., 3]
    clear = alpha < _CLEAR
    beside = clear.copy()
    for away in (1, 2):
        beside[away:] |= clear[:-away]
        beside[:-away] |= clear[away:]
        beside[:, away:] |= clear[:, :-away]
        beside[:, :-away] |= clear[:, away:]
    solid = alpha >= _SOLID
    border = colours[beside & solid].astype(np.int16)
    if not border.size:
        return _WHITE
    lost = [float((np.abs(border - ground).max(axis=1) < _CONTRAST).mean()) for ground in _GROUNDS]
    # A page with clear parts is white too, but little of its white borders on them. Of thin letters much does.
    light = int(((colours.min(axis=2) > _WHITE - _CONTRAST) & solid).sum())
    thin = light and (lost[0] * len(border) > _THIN * light or light > _ALL_LIGHT * int(solid.sum()))
    return _GROUNDS[lost.index(min(lost))] if thin and lost[0] > _FEW_LOST else _WHITE


def extrema_of(image: Image.Image) -> list[tuple[float, float]]:
    """The least and the greatest value of each band."""
    extrema: Any = image.getextrema()
    return list(extrema) if len(image.getbands()) > 1 else [extrema]


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel of a loaded picture has the same colour, or none is to be seen."""
    width, height = image.size
    places = (
        (0, 0),
        (width - 1, height - 1),
        (width // 2, height // 2),
        (width // 3, height // 4),
        (width * 3 // 4, height // 3),
    )
    seen: set[Any] = {image.getpixel(place) for place in places}
    if len({pixel for pixel in seen if "A" not in image.mode or pixel[-1]}) > 1:
        return False
    bands = extrema_of(image)
    return all(least == most for least, most in bands) or ("A" in image.mode and bands[-1] == (0, 0))
