"""What runs inside a decoder child: with jpeg_xl.py and png.py, which it uses, all that imports an image library.

Started as `python -S -m pipeline.decode_child <seconds> <bytes>` by pipeline.decode_process; pipeline.decode_wire says what
the two tell each other. It takes one picture at a time and ends when its standard input does: with its parent, however that ended. (The
kernel's death signal is not used: it follows the thread that started a child, and threads of a worker come and go.)
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO

from PIL import Image, ImageFile

from pipeline.decode_wire import AS_JPEG, MAX_JPEG, MAX_PIXELS, MAX_SCANS, MAX_SIDE, READY, REPLY, REQUEST, Outcome
from pipeline.pixels import ON_ITS_SIDE, as_png_holds_it, on_white, orientation_of, profile_of, turned_upright
from pipeline.sniff import NATIVE_FORMATS, jpeg_scans
from pipeline.types import ItemCode, Prepared, Refused

Decode = Callable[[str, bytes], Prepared | Refused]

#: Formats that are loaded before the first picture, beside those Pillow loads itself; the others when one comes.
_USUAL = ("JPEG", "PNG", "WebP")
#: The modules of formats whose name, with its first letter alone a capital, is not the module's.
_MODULES = {"JPEG 2000": "Jpeg2K", "WebP": "WebP"}
#: Pillow's name for a format, where it is not ours.
_PILLOW_NAMES = {"HEIC": "HEIF", "HEIF sequence": "HEIF", "JPEG 2000": "JPEG2000"}
_READ_BYTES = 256 * 1024  # several small pictures at once
_TELL_SECONDS = 0.02  # replies are held back no longer than about this
_JPEG_QUALITY = 90
_SMALLER = 0.7  # a side, where a JPEG comes out too large: half the pixels
_TOO_MANY_PIXELS = Refused(
    code=ItemCode.IMAGE_TOO_MANY_PIXELS,
    detail=f"The image has more than {MAX_PIXELS // 10**6} million pixels or a side over {MAX_SIDE:,} pixels: send it smaller.",
)
_TOO_MUCH_MEMORY = Refused(
    code=ItemCode.IMAGE_TOO_COMPLEX, detail="The image needs too much memory to decode: send it smaller or as PNG or JPEG."
)


def decode(kind: str, data: bytes) -> Prepared | Refused:
    """Decodes the whole of the first picture in `data`, which is of the format `kind` (pipeline.sniff).

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
        from pipeline.png import to_png

        upright = turned_upright(as_png_holds_it(image), orientation_of(image))
        png = to_png(upright, icc_profile=profile_of(image, upright.mode))
        width, height = upright.size
        return Prepared(data=png, mime=NATIVE_FORMATS["PNG"], width=width, height=height, source_format=kind)


def _open(kind: str, data: bytes) -> Image.Image | Refused:
    if kind == "JPEG XL":
        from pipeline.jpeg_xl import open_jpeg_xl

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


def main(decode: Decode = decode) -> None:
    """Serves decode until standard input ends. `decode` is a test's to replace."""
    requests, replies = _take_over_pipes()
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    _prepare_libraries()
    _confine(memory)
    gc.freeze()  # what is loaded stays: no collection need look at it again
    resident = _resident_reader()
    replies.write(READY)
    replies.flush()
    _silence()
    told = time.monotonic()
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        kind, more, length = REQUEST.unpack(head)
        data = requests.read(length)
        if len(data) < length:
            break
        _allow(seconds)
        outcome = decode(kind.rstrip(b"\0").decode(), data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data
        _answer(replies, outcome, resident())
        if more and time.monotonic() - told < _TELL_SECONDS:
            continue  # these replies go with the next: the parent need not wake for each
        replies.flush()
        told = time.monotonic()


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes to the parent, out of reach of what a library prints or reads."""
    requests, replies = os.fdopen(os.dup(0), "rb", _READ_BYTES), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path to compute with
        os.dup2(nothing.fileno(), 0)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to the whole group: the parent ends us in its time
        signal.signal(stop, signal.SIG_IGN)
    return requests, replies


def _prepare_libraries() -> None:
    Image.preinit()
    for kind in _USUAL:
        _load(kind)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _confine(memory: int) -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - as above
        score.write("900")  # of -1000 to 1000: if memory runs out, the kernel ends a decoder, not the worker
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901 - never above what we are given
        resource.setrlimit(what, (most, most))


def _silence() -> None:
    """What libraries print of strangers' bytes is noise; what keeps a child from starting was still heard."""
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - as above
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)


def _allow(seconds: int) -> None:
    """Gives the next picture its time: `seconds` of CPU, and twice that by the clock in case no parent is left to count."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def _resident_reader() -> Callable[[], int]:
    """What tells the bytes of memory we hold; where the kernel has no /proc, the most we ever held."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return lambda: int(os.pread(statm, 128, 0).split()[1]) * resource.getpagesize()


def _answer(replies: BinaryIO, outcome: Prepared | Refused, resident: int) -> None:
    if isinstance(outcome, Refused):
        detail = outcome.detail.encode()
        replies.write(REPLY.pack(Outcome.REFUSED, outcome.code.encode(), 0, 0, resident, len(detail)) + detail)
    else:
        verdict = Outcome.CONVERTED if outcome.data else Outcome.AS_RECEIVED
        replies.write(REPLY.pack(verdict, b"", outcome.width, outcome.height, resident, len(outcome.data)))
        replies.write(outcome.data)


if __name__ == "__main__":
    main()
