"""Real files, damaged at random: whatever comes of one, the decoder's parent lives on and the next picture is right.

Half a minute in the suite; `make fuzz` takes ten and says what became of how many.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.decode.pool import DecoderPool
from pipeline.decode.sniff import NATIVE_FORMATS
from pipeline.decode.wire import MAX_PIXELS
from pipeline.types import Prepared
from tests.fakes import picture_files
from tests.fakes.picture_files import animated, encoded, photo

SECONDS = float(os.environ.get("FUZZ_SECONDS", "25"))
GOOD = picture_files.native()["JPEG"]


@cache
def corpus() -> dict[str, bytes]:
    """Every format, the variants that decoders have code of their own for, and pictures as large as real ones."""
    grey = photo().convert("L")
    found = {**picture_files.native(), **picture_files.converted()}
    found |= {f"moving {kind}": animated(kind) for kind in ("PNG", "WEBP", "GIF", "AVIF", "TIFF")}
    found |= {
        f"TIFF {compression}": encoded(photo(), "TIFF", compression=compression)
        for compression in ("raw", "packbits", "tiff_adobe_deflate", "jpeg", "zstd", "lzma")
    }
    found |= {
        "TIFF fax": encoded(photo().convert("1"), "TIFF", compression="group4"),
        "TIFF float": encoded(grey.convert("F"), "TIFF"),
        "BigTIFF": encoded(photo(), "TIFF", big_tiff=True),
        "progressive JPEG": encoded(photo(160, 120), "JPEG", progressive=True, exif=picture_files.exif(6)),
        "CMYK JPEG": encoded(photo().convert("CMYK"), "JPEG"),
        "lossy WebP": encoded(photo(), "WEBP", quality=50),
        "interlaced palette PNG": encoded(photo().quantize(16), "PNG"),
        "lossy JPEG 2000": encoded(photo(), "JPEG2000", irreversible=True, quality_layers=[20]),
        "JPEG XL with alpha": encoded(photo().convert("RGBA"), "JXL"),
        "moving JPEG XL": picture_files.ANIMATED_JPEG_XL,
    }
    return found | {path.name: path.read_bytes() for path in sorted(Path("examples").glob("0*.*"))}


position = st.floats(0, 1, exclude_max=True)
#: A byte, a word of four, a piece cut out, a piece said twice, a piece of another file: at a place.
damage = st.one_of(
    st.tuples(st.just("set"), position, st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("set"), position, st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"])),
    st.tuples(st.just("cut"), position, st.integers(1, 300)),
    st.tuples(st.just("twice"), position, st.integers(1, 300)),
    st.tuples(st.just("splice"), position, st.integers(0, 10_000)),
)
#: Headers are a small part of a file and what most of a decoder's code reads: half of the places lie in them.
places = st.sampled_from([1.0, 0.02])


def damaged(data: bytes, edits: list[tuple[str, float, bytes | int]], reach: float) -> bytes:
    body = bytearray(data)
    others = list(corpus().values())
    for what, where, how in edits:
        at = 4 + int(where * reach * max(len(body) - 4, 1))
        if isinstance(how, bytes):
            body[at : at + len(how)] = how
        elif what == "cut":
            del body[at : at + how]
        elif what == "twice":
            body[at:at] = body[at : at + how]
        else:
            other = others[how % len(others)]
            body[at : at + 200] = other[how % len(other) :][:200]
    return bytes(body)


@pytest.mark.slow
def test_no_damage_to_a_real_file_harms_more_than_a_child():
    became: Counter[str] = Counter()
    ends = time.monotonic() + SECONDS
    with DecoderPool(2) as pool:
        # Few at once, so that the time is kept, and others each time.
        @settings(max_examples=100, derandomize=False, database=None, suppress_health_check=list(HealthCheck))
        @given(
            name=st.sampled_from(sorted(corpus())),
            edits=st.lists(damage, min_size=1, max_size=4),
            reach=places,
            end=st.one_of(st.just(1.0), st.floats(0.2, 1)),
        )
        def harm(name, edits, reach, end):
            data = damaged(corpus()[name], edits, reach)
            [outcome] = pool([data[: max(1, int(end * len(data)))]])
            if isinstance(outcome, Prepared):
                assert 0 < outcome.width * outcome.height <= MAX_PIXELS
                assert outcome.mime in NATIVE_FORMATS.values()
                became["as it came" if outcome.data == data else "PNG or cut"] += 1
            else:
                assert outcome.detail
                became[outcome.code.value] += 1
            [following] = pool([GOOD])
            assert isinstance(following, Prepared)
            assert following.data == GOOD

        while time.monotonic() < ends:
            harm()
    print(dict(became.most_common()))  # noqa: T201 - by hand
