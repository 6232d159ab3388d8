"""Stages every test picture of Pillow and pillow-heif with the real staging code, by base64 and by URL.

pip fetches the source packages of the installed versions. A staged picture must be the original bytes, a PNG with the pixels of a
plain decode, or a JPEG that looks the same. If its samples have more than 8 bits, only the order of brightness must be the same.
All other pictures must fail with a code. No decoder may crash, and no picture may take over 20 s.
"""

from __future__ import annotations

import argparse
import base64
import io
import subprocess
import sys
import tarfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageChops, ImageOps
from rich.console import Console
from rich.table import Table

from bench.report import machine
from pipeline import stage as staging
from pipeline.decode.once import SharedDecodes
from pipeline.decode.pool import DecoderPool
from pipeline.fetch.fetcher import Fetcher
from pipeline.outbound.addresses import parse_allow
from pipeline.packed import PackReader, PackWriter
from pipeline.ports import Decode
from pipeline.request.base64_text import decode_texts
from pipeline.types import MAX_TOTAL_BYTES, Failure, Fetched, ItemCode, Staged
from testbed import ROOT, pictures

FOLDER = ROOT / "var" / "bench-pictures"
PACKAGES = {"pillow": "Tests/images/", "pillow-heif": "tests/images/"}
DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
LOSS = 5  #: largest mean difference of the samples at which a JPEG counts as the same picture
#: A script that decodes a file without our limits. It exits with 0 if Pillow can decode the file.
PLAIN = "import sys, pillow_heif; from PIL import Image; pillow_heif.register_heif_opener(); Image.open(sys.argv[1]).load()"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    name: str
    outcome: str  #: `as it came`, `PNG`, an item code, or a description of the fault
    seconds: float  #: time of the slower of the two ways
    right: bool  #: whether the outcome is allowed
    plain: bool = False  #: the picture was refused, but plain Pillow decodes it


def files() -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package, inside in PACKAGES.items():
        wanted = f"{package.replace('-', '_')}-{version(package)}.tar.gz"
        if not (FOLDER / wanted).exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", FOLDER]
            subprocess.run([*command, f"{package}=={version(package)}"], check=True)
        with tarfile.open(FOLDER / wanted) as archive:
            for member in archive:
                _, _, name = member.name.partition("/")
                if member.isfile() and name.startswith(inside) and not name.endswith((".py", ".txt")):
                    body = archive.extractfile(member)
                    assert body
                    yield f"{package}: {name.removeprefix(inside)}", body.read()


def staged(received: Iterator[Fetched | Failure], decode: Decode, executor: ThreadPoolExecutor) -> tuple[Staged, bytes] | Failure:
    """Stages a chunk of one image. Returns the staged image and its bytes in the packed object, or the failure."""
    out = io.BytesIO()
    chunk = staging.stage(received, decode=decode, out=out, executor=executor, shared=SharedDecodes(), job="")
    return (chunk.staged[0], PackReader(out).read(0)) if chunk.staged else chunk.failures[0]


def by_base64(data: bytes) -> Iterator[Fetched | Failure]:
    out = io.BytesIO()
    pack = PackWriter(out)
    pack.add(0, base64.b64encode(data))
    pack.finish()
    return decode_texts(PackReader(out), [0])


def fault_of(data: bytes, mime: str, shown: bytes) -> str:
    """Describes what is wrong with the bytes that the model would get. An empty text means nothing is."""
    if shown == data:
        return ""
    if mime not in {"image/png", "image/jpeg"}:
        return "neither the bytes nor a PNG or JPEG"
    with Image.open(io.BytesIO(shown), formats=["PNG", "JPEG"]) as ours, Image.open(io.BytesIO(data)) as plain:
        ours.load()
        plain.load()
        upright = ImageOps.exif_transpose(plain)
        if ours.size != upright.size:
            return f"{ours.size} instead of {upright.size}"
        if upright.mode in DEEP:
            return _fault_of_greys(np.asarray(upright).astype(np.float64).ravel(), np.asarray(ours).ravel())
        difference = np.asarray(ImageChops.difference(_rgba(ours).convert("RGB"), _rgba(upright).convert("RGB")))
        if mime == "image/jpeg":  # a rotated photo, or a CMYK one
            return "" if difference.mean() < LOSS else "other pixels"
        # The service puts transparent pixels on a background, so only the opaque pixels must be the same.
        full = np.asarray(_rgba(upright).getchannel("A")) == 255
        return "" if not difference[full].any() else "other pixels"


def _rgba(image: Image.Image) -> Image.Image:
    return image.convert("RGBA") if image.has_transparency_data else image.convert("RGB").convert("RGBA")


def _fault_of_greys(plain: np.ndarray, ours: np.ndarray) -> str:
    plain = np.nan_to_num(plain)
    steps = np.diff(ours[np.argsort(plain, kind="stable")].astype(np.int16))
    if (steps < 0).any() and (steps > 0).any():
        return "greys in another order"
    return "" if ours.max() > ours.min() or plain.max() == plain.min() else "flat"


def look_at(
    name: str, data: bytes, ways: list[Iterator[Fetched | Failure]], decode: Decode, executor: ThreadPoolExecutor
) -> Seen:
    outcomes = []
    slowest = 0.0
    for way in ways:
        started = time.perf_counter()
        outcomes.append(staged(way, decode, executor))
        slowest = max(slowest, time.perf_counter() - started)
    first = outcomes[0]
    told = {(o.code, o.detail) if isinstance(o, Failure) else (o[0].sha256, o[1]) for o in outcomes}
    if len(told) > 1 and data:
        return Seen(name=name, outcome="base64 and URL differ", seconds=slowest, right=False)
    if isinstance(first, Failure):
        path = FOLDER / "plain"
        path.write_bytes(data)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", PLAIN, path], capture_output=True, timeout=100, check=False)
        crashed = first.code is ItemCode.IMAGE_CRASHED_DECODER
        return Seen(name=name, outcome=first.code.value, seconds=slowest, right=not crashed, plain=done.returncode == 0)
    shown, body = first
    fault = fault_of(data, shown.mime, body)
    return Seen(name=name, outcome=fault or ("as it came" if body == data else "PNG"), seconds=slowest, right=not fault)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.simplefilter("ignore")
    pillow_heif.register_heif_opener()
    seen: list[Seen] = []
    with pictures() as web, DecoderPool(1) as decode, ThreadPoolExecutor(1) as executor:
        fetch = Fetcher(parse_allow(web.allow))
        for number, (name, data) in enumerate(files()):
            url = web.page(str(number), data)
            by_url = fetch([(0, url)], total=MAX_TOTAL_BYTES, timeout=60.0)
            seen.append(look_at(name, data, [by_base64(data), by_url], decode, executor))
        fetch.close()
    report(seen)
    sys.exit(not all(one.right and one.seconds < 20 for one in seen))


def report(seen: list[Seen]) -> None:
    console = Console(width=110)
    console.print(f"{len(seen)} pictures, each by base64 and by URL\n{machine()}\n$ python -m bench.pictures")
    table = Table("outcome", "pictures", "of them decoded by plain Pillow", "slowest")
    by_outcome: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        by_outcome[one.outcome].append(one)
    for outcome, group in sorted(by_outcome.items(), key=lambda item: -len(item[1])):
        plain = str(sum(one.plain for one in group)) if any(outcome == code.value for code in ItemCode) else ""
        table.add_row(outcome, str(len(group)), plain, f"{max(one.seconds for one in group):.1f} s")
    console.print(table)
    endings = Counter(Path(one.name).suffix.lower() for one in seen if one.plain)
    console.print(f"Refused, though plain Pillow decodes them: {dict(endings.most_common())}")
    for one in seen:
        if not one.right:
            console.print(f"WRONG  {one.name}: {one.outcome}")
        elif one.plain and one.outcome != ItemCode.UNSUPPORTED_FORMAT:
            console.print(f"refused with {one.outcome}, though plain Pillow decodes it: {one.name}")


if __name__ == "__main__":
    main()
