"""Stages the test pictures of about fifty source packages with the real staging code, and compares them with other decoders.

pip and apt (deb-src) fetch the packages. A staged picture must be the original bytes, or show what Pillow, libvips or ImageMagick
shows: upright, on the same ground, in 8 bits. If its samples have more bits, the order of the greys must be the same. A picture
that Pillow and a second decoder open may be refused only for a reason that bench/pictures_explained.py lists. No decoder may
crash, and no picture may take over 20 s. Each picture goes in by base64 and by URL, with the same outcome.
"""

from __future__ import annotations

import argparse
import base64
import io
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from bench import pictures_sources as sources
from bench.pictures_compare import same
from bench.pictures_decoders import HOW_TO_INSTALL, Decoded, ForkingPillow, decoders_of, second_decoders
from bench.pictures_explained import difference
from bench.pictures_report import Seen, report
from pipeline import stage as staging
from pipeline.decode.once import SharedDecodes
from pipeline.decode.pool import DecoderPool
from pipeline.decode.sniff import sniff
from pipeline.fetch.fetcher import Fetcher
from pipeline.outbound.addresses import parse_allow
from pipeline.packed import PackReader, PackWriter
from pipeline.ports import Decode
from pipeline.request.base64_text import decode_texts
from pipeline.types import MAX_TOTAL_BYTES, Failure, Fetched, Staged
from testbed import ROOT, PictureServer, pictures

FOLDER = ROOT / "var" / "bench-pictures"
_WORKERS = 2
_ORIENTATION = 0x0112
_ORIENTED = frozenset(("PNG", "JPEG", "WebP"))


@dataclass(slots=True)
class _Parts:
    """What a worker process keeps from one picture to the next."""

    stack: ExitStack  #: keeps the server of the pictures running
    web: PictureServer  #: serves the pictures, for the way by URL
    decode: Decode  #: the service's decoder
    executor: ThreadPoolExecutor
    fetch: Fetcher
    pillow: ForkingPillow
    work: Path  #: a folder of its own


_parts: _Parts


def start_worker(folder: str) -> None:
    global _parts  # noqa: PLW0603 - a worker of the pool has no other place for its parts
    os.nice(3)
    warnings.simplefilter("ignore")
    pillow_heif.register_heif_opener()
    work = Path(tempfile.mkdtemp(dir=folder))
    pillow = ForkingPillow(work)  # before the threads of the other parts
    stack = ExitStack()
    web = stack.enter_context(pictures())
    fetch = Fetcher(parse_allow(web.allow))
    _parts = _Parts(
        stack=stack, web=web, decode=DecoderPool(1), executor=ThreadPoolExecutor(1), fetch=fetch, pillow=pillow, work=work
    )


def staged(received: Iterator[Fetched | Failure]) -> tuple[Staged, bytes] | Failure:
    """Stages a chunk of one image. Returns the staged image and its bytes in the packed object, or the failure."""
    out = io.BytesIO()
    chunk = staging.stage(received, decode=_parts.decode, out=out, executor=_parts.executor, shared=SharedDecodes(), job="")
    return (chunk.staged[0], PackReader(out).read(0)) if chunk.staged else chunk.failures[0]


def by_base64(data: bytes) -> Iterator[Fetched | Failure]:
    out = io.BytesIO()
    pack = PackWriter(out)
    pack.add(0, base64.b64encode(data))
    pack.finish()
    return decode_texts(PackReader(out), [0])


def look_at(picture: tuple[str, bytes]) -> Seen:
    name, data = picture
    slowest, outcomes = 0.0, []
    by_url = _parts.fetch([(0, _parts.web.page("picture", data))], total=MAX_TOTAL_BYTES, timeout=60.0)
    for way in (by_base64(data), by_url):
        started = time.perf_counter()
        outcomes.append(staged(way))
        slowest = max(slowest, time.perf_counter() - started)
    told = {(o.code, o.detail) if isinstance(o, Failure) else (o[0].sha256, o[1]) for o in outcomes}
    kind = sniff(data)
    seen = Seen(name=name, kind=kind if isinstance(kind, str) else "", seconds=slowest)
    if len(told) > 1 and data:
        return seen.but(outcome="fault", told=f"base64 and URL differ: {[_brief(one) for one in outcomes]}")
    path = _parts.work / f"picture{Path(name).suffix.lower()}"
    path.write_bytes(data)
    first = outcomes[0]
    try:
        if isinstance(first, Failure):
            return _refused(seen, first, path)
        if first[1] == data:
            return _passed(seen, path)
        return _converted(seen, first, path)
    finally:
        path.unlink()


def _brief(outcome: tuple[Staged, bytes] | Failure) -> str:
    return f"{outcome.code.value}: {outcome.detail}" if isinstance(outcome, Failure) else outcome[0].mime


def _refused(seen: Seen, failure: Failure, path: Path) -> Seen:
    openers = [one.by for one in [_parts.pillow(path)] if one]
    if openers:
        openers += [one.by for decoder in decoders_of(seen.kind, path, _parts.work) if (one := decoder())]
    return seen.but(outcome=failure.code.value, told=failure.detail, openers=tuple(openers))


def _passed(seen: Seen, path: Path) -> Seen:
    """A picture that passes must need no turn, because a model that ignores its orientation sees it turned."""
    if seen.kind in _ORIENTED and _orientation(path) in range(2, 9):
        return seen.but(outcome="fault", told="it is turned by a tag, and passed as it came")
    return seen.but(outcome="as it came")


def _orientation(path: Path) -> int:
    """The orientation in EXIF, not the one in XMP, which every viewer ignores."""
    try:
        with Image.open(path) as image:
            for name in ("xmp", "XML:com.adobe.xmp"):
                image.info.pop(name, None)
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow raises many errors
        return 1


def _converted(seen: Seen, shown: tuple[Staged, bytes], path: Path) -> Seen:
    staged_as, body = shown
    if staged_as.mime not in {"image/png", "image/jpeg"}:
        return seen.but(outcome="fault", told="neither the bytes nor a PNG or JPEG")
    lossy = staged_as.mime == "image/jpeg"
    with Image.open(io.BytesIO(body), formats=["PNG", "JPEG"]) as image:
        # A PNG with damage outside of its pixels keeps its alpha, as a sound PNG does.
        whole = image.mode == "RGBA" and seen.kind == "PNG" and image.getextrema()[3] == (255, 255)
        if image.mode not in {"1", "L", "P", "RGB"} and not whole:
            return seen.but(outcome="fault", told=f"its mode is {image.mode}")
        ours = np.asarray(image.convert("RGB"))
    others: list[Decoded] = []
    agree: list[str] = []
    for decoder in (partial(_parts.pillow, path), *decoders_of(seen.kind, path, _parts.work)):
        if not (other := decoder()):
            continue
        others.append(other)
        if same(ours, other, kind=seen.kind, lossy=lossy, inks=_has_inks(path)):
            agree.append(other.by)
        if other.by != "Pillow" and agree and agree[-1] == other.by:
            break  # a second decoder agrees, so a third need not be asked
    seen = seen.but(openers=tuple(one.by for one in others), agree=tuple(agree))
    if agree or not others:
        return seen.but(outcome="converted")
    if explained := difference(ours, others, name=seen.name, kind=seen.kind, note=staged_as.note):
        return seen.but(outcome="converted", told=explained)
    sizes = {other.by: other.rgba.shape[1::-1] for other in others}
    if all(size != ours.shape[1::-1] for size in sizes.values()):
        return seen.but(outcome="wrong", told=f"{ours.shape[1::-1]} instead of {sizes}")
    return seen.but(outcome="wrong", told="other pixels than " + " and ".join(sizes))


def _has_inks(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode == "CMYK"
    except Exception:  # noqa: BLE001 - Pillow raises many errors
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=250, help="take at most so many pictures from one Debian package")
    parser.add_argument("--only", default="", help="take only the pictures whose names match this regular expression")
    parser.add_argument("--fetched", action="store_true", help="take only the packages that an earlier run has fetched")
    arguments = parser.parse_args()
    if not second_decoders():
        sys.exit(f"A second decoder is needed, libvips or ImageMagick. Install both with: {HOW_TO_INSTALL}")
    missing = [] if arguments.fetched else sources.fetch(FOLDER)
    started = time.perf_counter()
    found = (one for one in sources.pictures(FOLDER, most=arguments.most) if re.search(arguments.only, one[0], re.IGNORECASE))
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(_WORKERS, start_worker, (folder,)) as pool,
    ):
        seen: list[Seen] = []
        with (FOLDER / "seen.txt").open("w") as log:
            while batch := list(islice(found, 200)):  # in batches, so that not all pictures are in memory
                for one in pool.imap_unordered(look_at, batch, chunksize=5):
                    seen.append(one)
                    print(one, file=log, flush=True)
    sys.exit(not report(seen, missing=missing, decoders=second_decoders(), seconds=time.perf_counter() - started))


if __name__ == "__main__":
    main()
