"""Changes the pixels of a decoded picture so that a PNG or JPEG can hold them and the picture looks right."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image

MISSING = "rows missing"  #: the key of a picture's `info` whose value is the note of the rows that its file lacks
#: Pillow's modes that PNG can hold with at most 8 bits a sample.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_WITH_ALPHA = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
#: The colour space that an ICC profile must have (its bytes 16 to 19) to be kept, by mode.
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
_TIFF_PHOTOMETRIC = 262  # the tag's value 0 means that white is zero
_XMP = ("xmp", "XML:com.adobe.xmp")
_WHITE = 255
_GROUNDS = (_WHITE, 0, 128)  # grey backgrounds in order of preference
_CLEAR, _SOLID = 64, 128  # alpha values: a pixel below the first is clear, a pixel from the second on is solid
_CONTRAST = 64  # of 255: a pixel that differs less from the background in every colour is hard to see
_FEW_LOST = 0.2  # share of border pixels: so few hard-to-see ones are only highlights and outlines
_THIN = 0.15  # share of light pixels: if more of them border on clear pixels, they form lines or letters
_ALL_LIGHT = 0.95  # share of solid pixels: if more of them are light, a white background would hide the picture


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, from 1 (upright as stored) to 8. It ignores an orientation in XMP, as every viewer does."""
    for name in _XMP:
        image.info.pop(name, None)
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow raises many errors; a picture with a damaged tag still decodes
        return 1


def is_turned(orientation: int) -> bool:
    """Whether the picture must be turned or mirrored to be upright."""
    return orientation in _UPRIGHT


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def as_png_holds_it(image: Image.Image) -> Image.Image:
    """The picture in a mode that PNG can hold with at most 8 bits a sample."""
    if image.mode in _PNG_MODES:
        return image
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PPM to 0 to 65535
        return _grey_of(image, bits=16)
    if image.mode in {"I", "F"}:
        return _grey_of(image, bits=32)
    return rgb_of_inks(image) if image.mode == "CMYK" else image.convert(_WITH_ALPHA.get(image.mode, "RGB"))


def rgb_of_inks(image: Image.Image) -> Image.Image:
    """A CMYK picture in sRGB: by its own ICC profile if that is a sound one of CMYK, else by Pillow's plain formula."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile[16:20] == b"CMYK":
        from PIL import ImageCms

        try:
            inks, screen = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            shown = ImageCms.profileToProfile(
                image, inks, screen, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            shown = None  # the profile is damaged
        if shown:
            return shown
    return image.convert("RGB")


def _grey_of(image: Image.Image, *, bits: int) -> Image.Image:
    """Scales deeper grey to 8 bits. Pillow's convert would clip instead, which turns almost every pixel white."""
    import numpy as np

    from pipeline.decode.depth import as_bytes

    values = np.asarray(image)
    grey = as_bytes(values.astype(np.uint16, copy=False) if bits == 16 else values, bits=bits)
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:  # Pillow inverts only samples of at most 8 bits
        grey = 255 - grey
    return Image.fromarray(grey)


def profile_of(image: Image.Image, mode: str) -> bytes | None:
    """The picture's ICC profile, if it fits the mode of the pixels. For example, a CMYK profile does not fit RGB."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile[16:20] == _PROFILE_SPACES.get(mode) else None


def opaque(image: Image.Image) -> Image.Image:
    """Replaces transparency by a background that contrasts with the picture. The mode must be one that PNG can hold.

    A model would choose its own background, on which some text cannot be read. An alpha channel that is 0 everywhere is a mistake
    of screenshots and games, and one that is 255 everywhere changes nothing. Such a channel is dropped.
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
    """The background for an RGBA picture: white, or the grey that contrasts best with the pixels next to clear ones.

    It is white unless the picture has light lines or letters that white would hide.
    """
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
    # A white page with clear parts has few light pixels next to them. Thin light letters have many.
    light = int(((colours.min(axis=2) > _WHITE - _CONTRAST) & solid).sum())
    thin = light and (lost[0] * len(border) > _THIN * light or light > _ALL_LIGHT * int(solid.sum()))
    return _GROUNDS[lost.index(min(lost))] if thin and lost[0] > _FEW_LOST else _WHITE


def extrema_of(image: Image.Image) -> list[tuple[float, float]]:
    """The least and the greatest value of each band."""
    extrema: Any = image.getextrema()
    return list(extrema) if len(image.getbands()) > 1 else [extrema]


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel of a loaded picture has the same colour, or every pixel is fully transparent."""
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
