"""Decodes a picture with Pillow, libvips and ImageMagick, for bench.pictures. Each runs in a process of its own."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

SECONDS = 60  #: a decoder may take so long for a picture
_MEMORY = 6 * 1024**3  # bytes that the decoder of a process may address
#: The formats that Debian's libvips decodes itself. It hands all others to ImageMagick.
_OF_VIPS = frozenset(
    ("PNG", "JPEG", "WebP", "HEIC", "HEIF", "HEIF sequence", "AVIF", "GIF", "TIFF", "JPEG 2000", "JPEG XL", "PPM", "FITS")
)
_DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
HOW_TO_INSTALL = "apt-get install --no-install-recommends libvips-tools imagemagick libmagickcore-6.q16-6-extra"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A picture as another decoder sees it: the first frame, upright."""

    by: str  #: the decoder
    rgba: np.ndarray  #: bytes, shape (height, width, 4)
    deep: np.ndarray | None = None  #: the samples in full depth, shape (height, width, 1 to 4); None if they have 8 bits


def second_decoders() -> dict[str, str]:
    """The programs of the second decoders that this machine has, by the decoder's name."""
    magick = shutil.which("convert-im6.q16") or shutil.which("magick") or shutil.which("convert")
    found = {"vips": shutil.which("vips"), "ImageMagick": magick}
    return {name: program for name, program in found.items() if program}


class ForkingPillow:
    """Decodes each picture with Pillow in a fork, because a foreign picture may crash or stall it.

    It forks from a process that has no thread, so it must be made before the first thread starts: a fork of a process with
    threads may wait for ever for a lock that one of them held.
    """

    def __init__(self, work: Path) -> None:
        self._out = work / "pillow.npz"
        asked, self._ask = os.pipe()
        self._told, telling = os.pipe()
        if not os.fork():
            os.close(self._ask)
            _serve(asked, telling, self._out)

    def __call__(self, path: Path) -> Decoded | None:
        """None if Pillow cannot decode the picture."""
        self._out.unlink(missing_ok=True)
        os.write(self._ask, os.fsencode(path) + b"\n")
        os.read(self._told, 1)
        if not self._out.exists():
            return None
        with np.load(self._out) as arrays:
            return Decoded(by="Pillow", rgba=arrays["rgba"], deep=arrays.get("deep"))


def _serve(asked: int, telling: int, out: Path) -> NoReturn:
    with os.fdopen(asked, "rb") as paths:
        for line in paths:
            child = os.fork()
            if not child:
                _decode_in_fork(Path(os.fsdecode(line.rstrip(b"\n"))), out)
            os.waitpid(child, 0)
            os.write(telling, b".")
    os._exit(0)


def _decode_in_fork(path: Path, out: Path) -> NoReturn:
    try:
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        part = out.with_suffix(".part.npz")
        np.savez(part, **_by_pillow(path))
        part.rename(out)
    except Exception:  # noqa: BLE001 - Pillow raises many errors; each means that it cannot decode the picture
        os._exit(1)
    os._exit(0)


def _by_pillow(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP:
        deep = np.nan_to_num(np.asarray(upright).astype(np.float64))[..., None]
        top = 65535 if upright.mode != "F" and deep.max() > 255 else 255
        grey = (deep * 255 / top).clip(0, 255).astype(np.uint8)
        return {"rgba": np.concatenate([grey, grey, grey, np.full_like(grey, 255)], axis=2), "deep": deep}
    full = upright.convert("RGBA") if upright.has_transparency_data else upright.convert("RGB").convert("RGBA")
    return {"rgba": np.asarray(full)}


def by_vips(program: str, path: Path, work: Path) -> Decoded | None:
    """None if libvips cannot decode the picture. A colour profile of CMYK is honoured, and so is the orientation."""
    upright, out = work / "upright.v", work / "vips.png"
    for one in (upright, out):
        one.unlink(missing_ok=True)
    if not _runs([program, "autorot", path, upright]) or not _runs(
        [program, "colourspace", upright, f"{out}[compression=1]", "srgb"]
    ):
        return None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MEMORY  # libvips copies large profiles into its PNG
    with Image.open(out) as image:
        return Decoded(by="vips", rgba=np.asarray(image.convert("RGBA")))


def by_magick(program: str, path: Path, work: Path, kind: str) -> Decoded | None:
    """None if ImageMagick cannot decode the picture."""
    out = work / "magick.pam"
    out.unlink(missing_ok=True)
    onto_canvas = ["-coalesce"] if kind == "GIF" else []
    command = [program, f"{path}[0]", *onto_canvas, "-auto-orient", "-colorspace", "sRGB", "-alpha", "on", "-depth", "16"]
    _runs([*command, f"pam:{out}"])  # it fails for some pictures that it decodes nevertheless
    if not out.exists():
        return None
    samples = _of_pam(out.read_bytes())
    if samples is None:
        return None
    if samples.shape[2] == 2:
        samples = samples[..., [0, 0, 0, 1]]
    return Decoded(by="ImageMagick", rgba=((samples.astype(np.uint32) + 128) // 257).astype(np.uint8), deep=samples)


def _of_pam(data: bytes) -> np.ndarray | None:
    """The samples of the first picture, shape (height, width, 2 or 4), scaled to 16 bits."""
    head, _, body = data.partition(b"ENDHDR\n")
    fields = dict(re.findall(r"^(\w+) (\d+)$", head.decode("ascii", "replace"), re.MULTILINE))
    width, height, depth, most = (int(fields.get(name, 0)) for name in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL"))
    if depth not in {2, 4} or most not in {255, 65535}:
        return None
    kind = np.dtype(">u2" if most > 255 else "u1")
    if len(body) < width * height * depth * kind.itemsize:
        return None
    samples = np.frombuffer(body, kind, width * height * depth).reshape(height, width, depth).astype(np.uint16)
    return samples * (65535 // most)


def decoders_of(kind: str, path: Path, work: Path) -> list[Callable[[], Decoded | None]]:
    """The second decoders to ask about a picture, the quicker one first. `kind`: its format, empty if it is unknown."""
    programs = second_decoders()
    asked: list[Callable[[], Decoded | None]] = []
    if "vips" in programs and kind in _OF_VIPS:
        asked.append(lambda: by_vips(programs["vips"], path, work))
    if "ImageMagick" in programs:
        asked.append(lambda: by_magick(programs["ImageMagick"], path, work, kind))
    return asked


def _runs(command: list[Any]) -> bool:
    environment = os.environ | {"VIPS_CONCURRENCY": "1", "MAGICK_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1"}
    try:
        return not subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, env=environment).returncode
    except subprocess.TimeoutExpired:
        return False
