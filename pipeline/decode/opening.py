"""Opens bytes of a known format as a Pillow picture. A reader of this folder does it where Pillow misreads or lacks a variant."""

from __future__ import annotations

import importlib
import math
import re
import struct
import warnings
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

#: Formats whose modules are loaded at start. Pillow loads some more itself, and other formats load with their first picture.
_USUAL = ("JPEG", "PNG", "WebP")
#: The name of a format's Pillow module, if it is not the format's capitalized name.
_MODULES = {"JPEG 2000": "Jpeg2K", "WebP": "WebP"}
#: Pillow's name for a format, if it differs from pipeline.decode.sniff.
_PILLOW_NAMES = {"HEIC": "HEIF", "HEIF sequence": "HEIF", "JPEG 2000": "JPEG2000"}


def prepare_libraries() -> None:
    """Loads the usual formats and sets Pillow's own limits."""
    Image.preinit()
    for kind in _USUAL:
        _load(kind)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def is_too_large(size: tuple[int, int]) -> bool:
    return math.prod(size) > MAX_PIXELS or max(size) > MAX_SIDE


def open_picture(kind: str, data: bytes) -> Image.Image | Refused:
    """The first picture in `data`, whose format is `kind` (pipeline.decode.sniff). Its pixels may not be loaded yet.

    Raises the errors of Pillow and of the readers if the data cannot be decoded.
    """
    if kind in _READERS:
        opened = _READERS[kind](data)
        if not isinstance(opened, bytes):
            return opened
        data = opened
    return _by_pillow(kind, data)


def _by_pillow(kind: str, data: bytes) -> Image.Image:
    _load(kind)
    # Pillow gets bytes and never a path, because it maps files into memory, and a cut BMP then kills the process with SIGBUS.
    return Image.open(BytesIO(data), formats=[_PILLOW_NAMES.get(kind, kind)])


@lru_cache
def _load(kind: str) -> None:
    """Loads the module that opens a format. Decoders use one thread each, because every core has its own child."""
    if _PILLOW_NAMES.get(kind, kind) == "HEIF":
        import pillow_heif

        # Thumbnails, depth maps and auxiliary images are not needed.
        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        return
    if kind == "AVIF":
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        return
    importlib.import_module(f"PIL.{_MODULES.get(kind, kind.capitalize())}ImagePlugin")


def _avif(data: bytes) -> bytes | Refused:
    return _unless_film("AVIF", data)


def _bmp(data: bytes) -> Image.Image | Refused:
    from pipeline.decode.bmp import open_bmp

    return open_bmp(data)


def _dds(data: bytes) -> Image.Image | Refused:
    from pipeline.decode.dds import open_dds, unread_dds

    opened = open_dds(data)
    if not isinstance(opened, bytes):
        return opened
    try:
        return _by_pillow("DDS", opened)
    except UnidentifiedImageError:
        raise
    except (NotImplementedError, OSError):
        return unread_dds(data)


def _dcx(data: bytes) -> Image.Image | Refused:
    """The first PCX picture of a DCX, which is a table of offsets with PCX pictures after it."""
    return _pcx(data[struct.unpack_from("<I", data, 4)[0] :])


def _heif(data: bytes) -> bytes | Refused:
    return _unless_film("HEIF", data)


def _jpeg_xl(data: bytes) -> Image.Image | Refused:
    from pipeline.decode.jpeg_xl import open_jpeg_xl

    return open_jpeg_xl(data)


def _pcx(data: bytes) -> Image.Image | Refused:
    from pipeline.decode.pcx import open_pcx

    return open_pcx(data)


def _psd(data: bytes) -> Image.Image | Refused:
    from pipeline.decode.psd import open_psd

    return open_psd(data)


def _unless_film(family: str, data: bytes) -> bytes | Refused:
    from pipeline.decode.heif import has_no_still_picture

    if not has_no_still_picture(data):
        return data
    return Refused(
        code=ItemCode.UNSUPPORTED_FORMAT,
        detail=f"This {family} sequence is a film without a still picture: send the frame you mean, as PNG or JPEG.",
    )


def _tiff(data: bytes) -> Image.Image | bytes | Refused:
    from pipeline.decode.tiff import open_tiff

    return open_tiff(data)


_COMMENTS = re.compile(rb"\A\s*(?:/\*.*?\*/\s*)+", re.DOTALL)


def _xbm(data: bytes) -> Image.Image:
    """Inverts the picture, because a set bit means black in XBM and Pillow reads it as white.

    Pillow knows no comment before the first line.
    """
    from PIL import ImageChops

    with _by_pillow("XBM", _COMMENTS.sub(b"", data)) as image:
        return ImageChops.invert(image)


#: Readers by format. A reader gives the picture, or the bytes for Pillow to open.
_READERS: dict[str, Callable[[bytes], Image.Image | bytes | Refused]] = {
    "AVIF": _avif,
    "BMP": _bmp,
    "DCX": _dcx,
    "DDS": _dds,
    "HEIC": _heif,
    "HEIF": _heif,
    "HEIF sequence": _heif,
    "JPEG XL": _jpeg_xl,
    "PCX": _pcx,
    "PSD": _psd,
    "TIFF": _tiff,
    "XBM": _xbm,
}
