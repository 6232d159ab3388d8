"""One picture decoded, in a decoder child: with pipeline/decode/jpeg_xl.py, pipeline/decode/png.py and pipeline/decode/pixels.py, which it uses, all that imports an image library."""

from __future__ import annotations

import importlib
import math
import warnings
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageFile

from pipeline.decode.pixels import ON_ITS_SIDE, as_png_holds_it, on_white, orientation_of, profile_of, turned_upright
from pipeline.decode.sniff import NATIVE_FORMATS, jpeg_scans
from pipeline.decode.wire import AS_JPEG, MAX_JPEG, MAX_PIXELS, MAX_SCANS, MAX_SIDE
from pipeline.types import ItemCode, Prepared, Refused

#: Formats that are loaded before the first picture, beside those Pillow loads itself; the others when one comes.
_USUAL = ("JPEG", "PNG", "WebP")
#: The modules of formats whose name, with its first letter alone a capital, is not the module's.
_MODULES = {"JPEG 2000": "Jpeg2K", "WebP": "WebP"}
#: Pillow's name for a format, where it is not ours.
_PILLOW_NAMES = {"HEIC": "HEIF", "HEIF sequence": "HEIF", "JPEG 2000": "JPEG2000"}
_JPEG_QUALITY = 90
_SMALLER = 0.7  # a side, where a JPEG comes out too large: half the pixels
_TOO_MANY_PIXELS = Refused(
    code=ItemCode.IMAGE_TOO_MANY_PIXELS,
    detail=f"The image has more than {MAX_PIXELS // 10**6} million pixels or a side over {MAX_SIDE:,} pixels: send it smaller.",
)
_TOO_MUCH_MEMORY = Refused(
    code=ItemCode.IMAGE_TOO_COMPLEX, detail="The image needs too much memory to decode: send it smaller or as PNG or JPEG."
)


def prepare_libraries() -> None:
    """Loads what is usual, and sets the limits that Pillow itself keeps."""
    Image.preinit()
    for kind in _USUAL:
        _load(kind)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(kind: str, data: bytes) -> Prepared | Refused:
    """Decodes the whole of the first picture in `data`, which is of the format `kind` (pipeline.decode.sniff).

    The answer's `data` is empty where the picture goes to the model as it came, else a PNG of 8 bits a sample or fewer,
    turned as its orientation tag says. With AS_JPEG before `kind` it is a JPEG whatever it was. Never raises for what is in
    `data`; it may still end or hang the process.
    """
    as_jpeg, kind = kind.startswith(AS_JPEG), kind.removeprefix(AS_JPEG)
    if kind == "JPEG" and jpeg_scans(data, most=MAX_SCANS) > MAX_SCANS:
        return Refused(
            code=ItemCode.IMAGE_TOO_COMPLEX, detail=f"The JPEG has more than {MAX_SCANS} scans: save it anew as a baseline JPEG."
        )
    try:
        return _as_jpeg(kind, data) if as_jpeg else _decode(kind, data)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return _TOO_MANY_PIXELS
    except MemoryError:
        return _TOO_MUCH_MEMORY
    except Exception:  # noqa: BLE001 - OSError, ValueError, SyntaxError, RuntimeError, struct.error: Pillow raises them all
        return Refused(
            code=ItemCode.IMAGE_CORRUPT,
            detail=f"The {kind} image cannot be decoded: it is damaged, cut short, or of a variant we cannot read.",
        )


def _decode(kind: str, data: bytes) -> Prepared | Refused:
    opened = _open(kind, data)
    if isinstance(opened, Refused):
        return opened
    with opened as image:
        size = image.size
        if _is_too_large(size):
            return _TOO_MANY_PIXELS
        # is_animated is read of these two alone: they count frames in their header, others by walking the whole file.
        as_received = kind in NATIVE_FORMATS and not (kind in {"PNG", "WebP"} and getattr(image, "is_animated", False))
        if as_received and kind == "JPEG":
            # Every scan is still entropy-decoded to its end, as grey at an eighth of the size: a baseline one in half the time.
            image.draft("L", (1, 1))
            image.load()
        else:
            image.load()
            size = image.size  # HEIF and icons: only now known for certain
            if _is_too_large(size):
                return _TOO_MANY_PIXELS
        if as_received:
            width, height = size[::-1] if orientation_of(image) in ON_ITS_SIDE else size
            return Prepared(data=b"", mime=NATIVE_FORMATS[kind], width=width, height=height, source_format=kind)
        from pipeline.decode.png import to_png

        upright = turned_upright(as_png_holds_it(image), orientation_of(image))
        png = to_png(upright, icc_profile=profile_of(image, upright.mode))
        width, height = upright.size
        return Prepared(data=png, mime=NATIVE_FORMATS["PNG"], width=width, height=height, source_format=kind)


def _open(kind: str, data: bytes) -> Image.Image | Refused:
    if kind == "JPEG XL":
        from pipeline.decode.jpeg_xl import open_jpeg_xl

        return open_jpeg_xl(data)
    _load(kind)
    # From memory, never by a path: a cut BMP that is mapped into memory kills the process with SIGBUS.
    return Image.open(BytesIO(data), formats=[_PILLOW_NAMES.get(kind, kind)])


@lru_cache
def _load(kind: str) -> None:
    """Loads what opens a format. One child a core is the parallelism there is, so decoders start no threads."""
    if _PILLOW_NAMES.get(kind, kind) == "HEIF":
        import pillow_heif

        # Thumbnails and depth maps are not what is asked about.
        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        return
    if kind == "AVIF":
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        return
    importlib.import_module(f"PIL.{_MODULES.get(kind, kind.capitalize())}ImagePlugin")


def _as_jpeg(kind: str, data: bytes) -> Prepared | Refused:
    opened = _open(kind, data)
    if isinstance(opened, Refused):
        return opened
    with opened as image:
        if _is_too_large(image.size):
            return _TOO_MANY_PIXELS
        image.load()
        if _is_too_large(image.size):
            return _TOO_MANY_PIXELS
        upright = turned_upright(as_png_holds_it(image), orientation_of(image))
        profile = profile_of(image, upright.mode) if upright.mode in {"L", "RGB"} else None
        shown = upright if upright.mode in {"L", "RGB"} else on_white(upright)
    while True:
        jpeg = BytesIO()
        shown.save(jpeg, "JPEG", quality=_JPEG_QUALITY, icc_profile=profile)
        if jpeg.tell() <= MAX_JPEG:
            width, height = shown.size
            return Prepared(data=jpeg.getvalue(), mime=NATIVE_FORMATS["JPEG"], width=width, height=height, source_format=kind)
        shown = shown.resize((round(shown.width * _SMALLER) or 1, round(shown.height * _SMALLER) or 1), Image.Resampling.BOX)


def _is_too_large(size: tuple[int, int]) -> bool:
    return math.prod(size) > MAX_PIXELS or max(size) > MAX_SIDE
