"""The kinds of refusals and differences that bench.pictures explains. Whatever is not listed here counts as a fault."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bench.pictures_compare import scaled
from bench.pictures_decoders import Decoded
from pipeline.notes import NoteCode
from pipeline.types import ItemCode


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    kind: str  #: what the report calls it
    code: ItemCode  #: of the refusal
    told: str  #: a regular expression that the detail of the refusal matches
    why: str  #: one sentence


_UNSUPPORTED, _TOO_MANY = ItemCode.UNSUPPORTED_FORMAT, ItemCode.IMAGE_TOO_MANY_PIXELS
REFUSALS: tuple[Explained, ...] = (
    Explained(
        kind="no magic bytes",
        code=_UNSUPPORTED,
        told="of no image format we know|This is text",
        why="Only the name tells the format (bare DIB, IM, Spider and the like), and the service does not trust names.",
    ),
    Explained(
        kind="a format that is refused by name",
        code=_UNSUPPORTED,
        told="not an image format we take|Camera raw|Video|is a drawing",
        why="docs/reference/formats.md lists it under Refused.",
    ),
    Explained(
        kind="a variant of PSD",
        code=_UNSUPPORTED,
        told="A PSD (multichannel|of colour mode)",
        why="Its channels are single inks without stated colours; the other decoders show some of them as RGB.",
    ),
    Explained(
        kind="a variant of TIFF",
        code=_UNSUPPORTED,
        told="A TIFF .* cannot be read here",
        why="The message names the compression or the samples, which need a library that the service does not have.",
    ),
    Explained(
        kind="a variant of JPEG",
        code=_UNSUPPORTED,
        told="A JPEG .* cannot be read here",
        why="The message names the coding, which libjpeg does not decode.",
    ),
    Explained(
        kind="a film",
        code=_UNSUPPORTED,
        told="animated JPEG XL|film without a still picture",
        why="docs/reference/formats.md refuses it: no frame is the one that is meant.",
    ),
    Explained(
        kind="over the limit of pixels",
        code=_TOO_MANY,
        told="more than",
        why="The service takes 50 million pixels and sides of 30000 pixels.",
    ),
)


def refusal(code: ItemCode, detail: str) -> Explained | None:
    """The explanation of a refusal; None if there is none."""
    return next((one for one in REFUSALS if one.code is code and re.search(one.told, detail)), None)


#: Single files that were looked at: what the others do with them.
_LOOKED_AT = {
    "kimageformats: autotests/read/psd/cmyka-16bits.psd": "the others convert inks without the file's profile",
    "kimageformats: autotests/read/psd/53alphas.psd": "Pillow alone opens it, and shows other channels in place of the colours",
    "netsurf: libnsbmp/test/afl-bmp/id:001609,src:001267+001346,op:splice,rep:8.bmp": "runs of a fuzzed BMP leave their row",
    "openimageio: testsuite/psd-colormodes/src/pattern2-8-cmyk.psd": "the others convert inks without the file's profile",
    "pillow: Tests/images/bmp/q/rgb16-231.bmp": "ImageMagick alone opens it, and scales unusual masks wrongly",
    "pillow: Tests/images/bmp/q/rgba16-4444.bmp": "ImageMagick alone opens it, and scales unusual masks wrongly",
    "psd-tools: tests/psd_files/colormodes/4x4_16bit_lab.psd": "ImageMagick alone opens it, and takes another white for Lab",
    "qtimageformats-opensource-src: tests/shared/images/dds/A4L4.dds": "Pillow alone opens it, and mixes alpha into the brightness",
    "rasterio: tests/data/float.tif": "the others cut floats off at 255",
    "rasterio: tests/data/float_nan.tif": "the others cut floats off at 255",
    "tiff: test/images/minisblack-2c-8b-alpha.tiff": "libvips takes two planes for one, and ImageMagick brightens the greys",
    "tiff: test/images/test_float64_predictor2_be_lzw.tif": "the others cut floats off at 255",
    "tiff: test/images/test_float64_predictor2_le_lzw.tif": "the others cut floats off at 255",
}


def difference(ours: np.ndarray, others: list[Decoded], *, name: str, kind: str, note: str) -> str:
    """The kind of a difference from every other decoder that is no fault; empty if it is one. `ours`: RGB bytes."""
    if name in _LOOKED_AT:
        return _LOOKED_AT[name]
    if NoteCode.ROWS_MISSING in note:
        return "the file ends early, and each decoder fills the missing rows in its own way"
    if any(scaled(ours, other) for other in others):
        return "brightness scaled by the bits in use"
    if all(other.rgba[..., :3].max() < 16 for other in others) and ours.max() > 128:
        return "the others show floats or faint samples as black"
    if kind == "JPEG XL" and all(other.by == "vips" and _is_brighter_by_gamma(ours, other) for other in others):
        return "libvips takes the floats of a JPEG XL for linear light"
    if kind in {"PSD", "XBM"} and all(other.by == "Pillow" and scaled(255 - ours, other) for other in others):
        return "a set bit is ink, and Pillow alone inverts it"
    return ""


def _is_brighter_by_gamma(ours: np.ndarray, other: Decoded) -> bool:
    """Whether `other` is our picture with the curve of sRGB applied once more."""
    light = ours / 255
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    return bool(ours.shape[:2] == other.rgba.shape[:2] and np.abs(encoded - other.rgba[..., :3]).mean() < 3)
