"""Compares the decoder child's conversion of 12-megapixel BMP, TIFF and AVIF to PNG with Pillow's at its fastest level.
It also measures the turning of a JPEG whose orientation says so.

Both convert the same bytes in this process, in turn. The pixels of the two results must be equal.
"""

from __future__ import annotations

import argparse
import time
from io import BytesIO

import numpy as np
from PIL import Image, ImageChops

from bench.report import Row, at_most, print_report, spread
from pipeline.decode.opening import prepare_libraries
from pipeline.decode.picture import decode
from pipeline.types import Prepared

GOAL = 0.5
SIZE = (4000, 3000)


def photo() -> Image.Image:
    """The crumpled receipt of examples/, enlarged. Sensor noise is added, because without it the picture compresses too well."""
    with Image.open("examples/02-crumpled-receipt.jpg") as small:
        pixels = np.asarray(small.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
    noise = np.random.default_rng(5).normal(0, 2, pixels.shape).astype(np.int16)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def by_pillow(data: bytes) -> bytes:
    out = BytesIO()
    with Image.open(BytesIO(data)) as image:
        image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def by_us(kind: str, data: bytes) -> bytes:
    outcome = decode(kind, data)
    assert isinstance(outcome, Prepared)
    return outcome.data


def same(one: bytes, other: bytes) -> bool:
    with Image.open(BytesIO(one)) as a, Image.open(BytesIO(other)) as b:
        return a.mode == b.mode and ImageChops.difference(a, b).getbbox() is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    prepare_libraries()
    picture = photo()
    rows: list[Row] = []
    for name, kind, options in (
        ("BMP", "BMP", {}),
        ("TIFF", "TIFF", {}),
        ("TIFF, LZW", "TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", "AVIF", {"quality": 75, "speed": 9}),
    ):
        body = BytesIO()
        picture.save(body, kind, **options)
        data = body.getvalue()
        ours, theirs = by_us(kind, data), by_pillow(data)
        assert same(ours, theirs)
        taken: list[float] = []
        ratios: list[float] = []
        for _ in range(runs):
            started = time.process_time()
            by_us(kind, data)
            middle = time.process_time()
            by_pillow(data)
            taken.append(middle - started)
            ratios.append((middle - started) / (time.process_time() - middle))
        rows += [
            (f"{name} to PNG, CPU", spread(taken, "s"), ""),
            (f"{name}, ours / Pillow's", spread(ratios, "x"), at_most(GOAL)),
            (f"{name}, size of the PNG, ours / Pillow's", f"{len(ours) / len(theirs):.2f} x", ""),
        ]
    rows += [turned(picture, name, subsampling, runs) for name, subsampling in (("4:2:0", 2), ("4:4:4", 0))]
    print_report(f"{SIZE[0]} x {SIZE[1]} pixels to PNG, and a photo on its side to an upright JPEG, {runs} runs", rows)


def turned(picture: Image.Image, name: str, subsampling: int, runs: int) -> Row:
    """The CPU time for a JPEG that its orientation turns."""
    exif, body = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    picture.save(body, "JPEG", quality=90, subsampling=subsampling, exif=exif)
    data, taken = body.getvalue(), []
    for _ in range(runs):
        started = time.process_time()
        outcome = decode("JPEG", data)
        taken.append(time.process_time() - started)
        assert isinstance(outcome, Prepared)
        assert (outcome.width, outcome.height) == SIZE[::-1]
    return f"JPEG of {name}, {len(data) / 1e6:.1f} MB, turned, CPU", spread(taken, "s"), at_most(0.18)


if __name__ == "__main__":
    main()
