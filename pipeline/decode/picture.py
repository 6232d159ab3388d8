"""Decodes one picture, in a decoder child. Only this module and the modules that it uses import an image library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

from PIL import Image, JpegImagePlugin

from pipeline.decode.jpeg import JpegFrame, jpeg_frame, jpeg_scans, mended_jpeg
from pipeline.decode.opening import is_too_large, open_picture
from pipeline.decode.pages import note_of_pages
from pipeline.decode.parts import check_parts
from pipeline.decode.pixels import (
    MISSING,
    ON_ITS_SIDE,
    as_png_holds_it,
    extrema_of,
    is_blank,
    is_turned,
    opaque,
    orientation_of,
    profile_of,
    rgb_of_inks,
    turned_upright,
)
from pipeline.decode.sniff import NATIVE_FORMATS
from pipeline.decode.too_many import TooManyParts, limited
from pipeline.decode.wire import AS_JPEG, MAX_JPEG, MAX_PIXELS, MAX_SCANS, MAX_SIDE
from pipeline.notes import NoteCode, joined, note
from pipeline.types import ItemCode, Prepared, Refused

_JPEG_QUALITY = 90  # for pictures that the model needs as JPEG
_TURNED_QUALITY = 95  # for pictures that were JPEG already: the loss is not visible
_FULL_COLOUR, _WIDE_COLOUR, _HALF_COLOUR = 0, 1, 2  # Pillow's numbers for the chroma subsamplings 4:4:4, 4:2:2 and 4:2:0
_LARGE = 4_000_000  # pixels: above this size 4:4:4 costs a third more time than 4:2:2, and models scale the picture down anyway
_TRY_PNG = 1_000_000  # pixels: for a picture up to this size a PNG is quick to make and may be smaller than the JPEG
_SMALLER = 0.7  # factor for each side if a JPEG is too large: it halves the pixels
_TOO_MANY_PIXELS = Refused(
    code=ItemCode.IMAGE_TOO_MANY_PIXELS,
    detail=f"The image has more than {MAX_PIXELS // 10**6} million pixels or a side over {MAX_SIDE:,} pixels: send it smaller.",
)
_TOO_MUCH_MEMORY = Refused(
    code=ItemCode.IMAGE_TOO_COMPLEX, detail="The image needs too much memory to decode: send it smaller or as PNG or JPEG."
)
_TOO_MANY_SCANS = Refused(
    code=ItemCode.IMAGE_TOO_COMPLEX, detail=f"The JPEG has more than {MAX_SCANS} scans: save it anew as a baseline JPEG."
)
_TOO_MANY_PARTS = Refused(
    code=ItemCode.IMAGE_TOO_COMPLEX,
    detail="The image has far more chunks, segments, blocks or tags than it needs: save it anew, as PNG or JPEG.",
)
_BLANK = note(NoteCode.BLANK, "every pixel has the same colour")


def decode(kind: str, data: bytes) -> Prepared | Refused:
    """Decodes the first picture in `data` completely. `kind` is its format (pipeline.decode.sniff).

    The result's `data` is empty if the picture goes to the model as received. Otherwise it is an upright JPEG, or an upright PNG
    of at most 8 bits a sample. With AS_JPEG before `kind` the result is always a JPEG. The contents of `data` never raise an
    error, but they may crash or hang the process.
    """
    as_jpeg, kind = kind.startswith(AS_JPEG), kind.removeprefix(AS_JPEG)
    try:
        check_parts(kind, data)
        if as_jpeg:
            return _as_jpeg(kind, data)
        return _NATIVE[kind](data) if kind in _NATIVE else _decode(kind, data)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return _TOO_MANY_PIXELS
    except TooManyParts:
        return _TOO_MANY_PARTS
    except MemoryError:
        return _TOO_MUCH_MEMORY
    except Exception:  # noqa: BLE001 - Pillow raises OSError, ValueError, SyntaxError, RuntimeError and struct.error
        return Refused(
            code=ItemCode.IMAGE_CORRUPT,
            detail=f"The {kind} image cannot be decoded: it is damaged, cut short, or of a variant we cannot read.",
        )


def _decode(kind: str, data: bytes) -> Prepared | Refused:
    """HEIC and HEIF go to the model as received. Every other format becomes PNG."""
    opened = _loaded(kind, data)
    if isinstance(opened, Refused):
        return opened
    with opened as image:
        if kind in NATIVE_FORMATS:
            return _as_it_came(kind, image, data)
        return _as_png(kind, image, note_of_pages(kind, data, image))


def _loaded(kind: str, data: bytes) -> Image.Image | Refused:
    opened = open_picture(kind, data)
    if isinstance(opened, Refused):
        return opened
    if is_too_large(opened.size):
        return _TOO_MANY_PIXELS
    try:
        opened.load()
    except OSError:
        if kind != "GIF":
            raise
        return _what_is_there(kind, data)
    # Loading may change the size of HEIF and icons.
    return _TOO_MANY_PIXELS if is_too_large(opened.size) else opened


def _what_is_there(kind: str, data: bytes) -> Image.Image:
    """The picture of a file that ends early. Its `info` has a note that says how many rows are missing."""
    from pipeline.decode.cut_short import load_what_is_there

    def open_again() -> Image.Image:
        opened = open_picture(kind, data)
        assert isinstance(opened, Image.Image)
        return opened

    image, image.info[MISSING] = load_what_is_there(open_again)
    return image


def _jpeg(data: bytes) -> Prepared | Refused:
    frame = jpeg_frame(data)
    if not frame.one_scan and jpeg_scans(data, most=MAX_SCANS) > MAX_SCANS:
        return _TOO_MANY_SCANS
    if unread := frame.unread:
        return Refused(
            code=ItemCode.UNSUPPORTED_FORMAT, detail=f"A JPEG {unread} cannot be read here: save it as a baseline JPEG."
        )
    try:
        return _sound_jpeg(data, frame)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError, TooManyParts):
        raise
    except Exception:  # noqa: BLE001 - as in decode(); if the damage is outside the pixels, a repaired file decodes
        from pipeline.decode.cut_short import whole_jpeg

        mended = mended_jpeg(data)
        if jpeg_scans(mended, most=MAX_SCANS) > MAX_SCANS:
            return _TOO_MANY_SCANS
        whole, missing = whole_jpeg(mended)
        outcome = _sound_jpeg(whole, frame)
        if isinstance(outcome, Refused):
            return outcome
        return replace(outcome, data=outcome.data or whole, note=joined([missing, outcome.note]))


def _sound_jpeg(data: bytes, frame: JpegFrame) -> Prepared | Refused:
    """A JPEG goes to the model as received if every model reads it correctly: it is upright, in a usual coding, and not CMYK."""
    opened = open_picture("JPEG", data)
    assert isinstance(opened, JpegImagePlugin.JpegImageFile)
    with opened as image:
        if is_too_large(image.size):
            return _TOO_MANY_PIXELS
        width, height = image.size
        orientation = orientation_of(image)
        if frame.usual and image.mode != "CMYK" and not is_turned(orientation):
            # Decoding as grey at an eighth of the size halves the time for a baseline JPEG and still reads every scan completely.
            image.draft("L", (1, 1))
            image.load()
            told = _BLANK if is_blank(image) and _is_blank_jpeg(data) else ""
            return Prepared(data=b"", mime=NATIVE_FORMATS["JPEG"], width=width, height=height, source_format="JPEG", note=told)
        image.load()
        return _turned("JPEG", image, orientation, lossless=frame.lossless)


def _is_blank_jpeg(data: bytes) -> bool:
    """Whether the JPEG is blank at its full size, because a thin line may disappear at an eighth of the size."""
    opened = open_picture("JPEG", data)
    assert isinstance(opened, Image.Image)
    with opened as image:
        image.load()
        return is_blank(image)


def _png(data: bytes) -> Prepared | Refused:
    from pipeline.decode.png_chunks import is_sound, mended_png

    try:
        outcome = _sound_png(data)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError, TooManyParts):
        raise
    except Exception:  # noqa: BLE001 - as in decode(); if the damage is outside the pixels, a repaired file decodes
        mended = mended_png(data)
        outcome = _sound_png(mended, cut=True)
    else:
        if isinstance(outcome, Refused) or outcome.data or is_sound(data):
            return outcome
        mended = mended_png(data)
    if isinstance(outcome, Prepared) and not outcome.data:
        return replace(outcome, data=mended)
    return outcome


def _sound_png(data: bytes, *, cut: bool = False) -> Prepared | Refused:
    """A PNG goes to the model as received if it is upright, has one frame and its samples use their full depth.

    `cut`: the last rows may be missing.
    """
    opened = open_picture("PNG", data)
    assert isinstance(opened, Image.Image)
    with opened as image:
        if is_too_large(image.size):
            return _TOO_MANY_PIXELS
        try:
            image.load()
        except OSError:
            if not cut:
                raise
            with _what_is_there("PNG", data) as there:
                return _as_png("PNG", there)
        if getattr(image, "is_animated", False):
            return _as_png("PNG", image, note_of_pages("PNG", data, image))
        orientation = orientation_of(image)
        if (brighter := _brighter(data, image)) is not None:
            return _as_png("PNG", turned_upright(brighter, orientation))
        if is_turned(orientation):
            return _as_png("PNG", image)
        return _as_it_came("PNG", image, data)


def _brighter(data: bytes, image: Image.Image) -> Image.Image | None:
    """The picture scaled to its proper brightness, if its 16-bit samples use only the low bits; None for any other picture."""
    from pipeline.decode import png_chunks

    if not png_chunks.is_deep(data):
        return None
    from pipeline.decode.depth import FAINT, as_bytes

    deep = image.mode.startswith("I")
    lightest = max(most for _, most in extrema_of(image)[: 1 if image.mode == "LA" else 3])
    if lightest >= (65536 if deep else 256) // FAINT:
        return None
    if deep:
        return as_png_holds_it(image)
    samples = png_chunks.deep_samples(data)
    if samples is None:
        return None
    colours = as_bytes(samples[..., :3], bits=16)
    shown = Image.fromarray(colours)
    if samples.shape[2] == 4:
        shown.putalpha(Image.fromarray(as_bytes(samples[..., 3], bits=16, stretch=False)))
    return shown


def _webp(data: bytes) -> Prepared | Refused:
    opened = open_picture("WebP", data)
    assert isinstance(opened, Image.Image)
    with opened as image:
        if is_too_large(image.size):
            return _TOO_MANY_PIXELS
        image.load()
        if getattr(image, "is_animated", False):
            return _as_png("WebP", image, note_of_pages("WebP", data, image))
        orientation = orientation_of(image)
        if is_turned(orientation):
            return _turned("WebP", image, orientation, lossless=_is_lossless_webp(data))
        return _as_it_came("WebP", image, data)


def _is_lossless_webp(data: bytes) -> bool:
    pixels = {b"VP8 ", b"VP8L"}
    return next((name for name in limited(_webp_chunks(data)) if name in pixels), b"") == b"VP8L"


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """The names of the chunks."""
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4]
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2


def _as_it_came(kind: str, image: Image.Image, data: bytes) -> Prepared:
    width, height = image.size[::-1] if orientation_of(image) in ON_ITS_SIDE else image.size
    notes = [note_of_pages(kind, data, image), _BLANK if is_blank(image) else ""]
    return Prepared(data=b"", mime=NATIVE_FORMATS[kind], width=width, height=height, source_format=kind, note=joined(notes))


def _as_png(kind: str, image: Image.Image, *notes: str) -> Prepared:
    from pipeline.decode.png import to_png

    shown = opaque(turned_upright(as_png_holds_it(image), orientation_of(image)))
    png = to_png(shown, icc_profile=profile_of(image, shown.mode))
    width, height = shown.size
    told = joined([*notes, str(image.info.get(MISSING, "")), _BLANK if is_blank(shown) else ""])
    return Prepared(data=png, mime=NATIVE_FORMATS["PNG"], width=width, height=height, source_format=kind, note=told)


def _turned(kind: str, image: Image.Image, orientation: int, *, lossless: bool) -> Prepared:
    """Turns the picture upright and makes it a JPEG of a quality without visible loss.

    It makes a PNG instead if the source is lossless, if JPEG cannot hold the picture, or if the PNG is smaller.
    """
    if lossless or image.mode not in {"L", "RGB", "CMYK"}:
        return _as_png(kind, image)
    shown = turned_upright(image if image.mode in {"L", "RGB"} else rgb_of_inks(image), orientation)
    # A 4:2:0 picture stays 4:2:0. Other subsamplings keep more colour, because a turn would lose more of it otherwise.
    half = isinstance(image, JpegImagePlugin.JpegImageFile) and JpegImagePlugin.get_sampling(image) == _HALF_COLOUR
    half |= kind == "WebP"
    subsampling = _HALF_COLOUR if half else _WIDE_COLOUR if shown.width * shown.height > _LARGE else _FULL_COLOUR
    profile = profile_of(image, shown.mode)
    made = BytesIO()
    shown.save(made, "JPEG", quality=_TURNED_QUALITY, subsampling=subsampling, icc_profile=profile)
    body, mime = made.getvalue(), NATIVE_FORMATS["JPEG"]
    width, height = shown.size
    if width * height <= _TRY_PNG:
        from pipeline.decode.png import to_png

        png = to_png(shown, icc_profile=profile)
        body, mime = (png, NATIVE_FORMATS["PNG"]) if len(png) < len(body) else (body, mime)
    told = _BLANK if is_blank(shown) else ""
    return Prepared(data=body, mime=mime, width=width, height=height, source_format=kind, note=told)


def _as_jpeg(kind: str, data: bytes) -> Prepared | Refused:
    opened = _loaded(kind, data)
    if isinstance(opened, Refused):
        return opened
    with opened as image:
        shown = opaque(turned_upright(as_png_holds_it(image), orientation_of(image)))
        profile = profile_of(image, shown.mode) if shown.mode in {"L", "RGB"} else None
        shown = shown if shown.mode in {"L", "RGB"} else shown.convert("RGB")
    while True:
        jpeg = BytesIO()
        shown.save(jpeg, "JPEG", quality=_JPEG_QUALITY, icc_profile=profile)
        if jpeg.tell() <= MAX_JPEG:
            width, height = shown.size
            return Prepared(data=jpeg.getvalue(), mime=NATIVE_FORMATS["JPEG"], width=width, height=height, source_format=kind)
        shown = shown.resize((round(shown.width * _SMALLER) or 1, round(shown.height * _SMALLER) or 1), Image.Resampling.BOX)


_NATIVE = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp}
