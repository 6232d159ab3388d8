"""The picture counts, not its wrapping: what is wrong beside the pixels refuses none, and what is missing of them is said."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.decode.jpeg import has_first_passes, is_refined, jpeg_frame, mended_jpeg
from pipeline.decode.pool import DecoderPool
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import odd_picture_files as odd
from tests.fakes.odd_picture_files import page, png_chunk, samples
from tests.fakes.picture_files import animated, converted, encoded, exif, photo


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1) as pool:
        yield pool


def prepared(pool: DecoderPool, data: bytes) -> Prepared:
    [outcome] = pool([data])
    assert isinstance(outcome, Prepared), outcome
    return outcome


def shown(outcome: Prepared) -> Image.Image:
    """As the strictest reader opens it: Pillow, which a model's server may use."""
    image = Image.open(io.BytesIO(outcome.data), formats=["JPEG", "PNG"])
    image.load()
    assert image.size == (outcome.width, outcome.height)
    return image


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one.convert("RGB")), np.asarray(other.convert("RGB")))


# PNG


def broken_pngs() -> dict[str, bytes]:
    sound = odd.png(samples())
    long = np.random.default_rng(0).integers(0, 255, 1_400_000, dtype=np.uint8).tobytes()
    pixels = sound.index(b"IDAT")
    end = len(sound) - 12
    return {
        "pHYs with a wrong checksum": odd.png(samples(), before=png_chunk(b"pHYs", bytes(9), checksum=1)),
        "tEXt with a wrong checksum": odd.png(samples(), before=png_chunk(b"tEXt", b"a\0b", checksum=1)),
        "pHYs of three bytes": odd.png(samples(), before=png_chunk(b"pHYs", bytes(3))),
        "cHRM of nothing": odd.png(samples(), before=png_chunk(b"cHRM", b"")),
        "iCCP that is no profile": odd.png(samples(), before=png_chunk(b"iCCP", b"x\0\0no zlib")),
        "zTXt that is no text": odd.png(samples(), before=png_chunk(b"zTXt", b"x\0\0no zlib")),
        "a comment of 3 MB": odd.png(samples(), before=png_chunk(b"tEXt", b"mxfile\0" + b"x" * 3_000_000)),
        "a packed comment of 3 MB": odd.png(
            samples(), before=png_chunk(b"zTXt", b"mxfile\0\0" + zlib.compress(b"x" * 3_000_000))
        ),
        "a profile of 1.4 MB": odd.png(samples(), before=png_chunk(b"iCCP", b"x\0\0" + zlib.compress(long))),
        "pixels with a wrong checksum": sound[: end - 4] + b"\0\0\0\0" + sound[end:],
        "a header with a wrong checksum": sound[:29] + b"\0\0\0\0" + sound[33:],
        "a comment longer than it says": sound[: pixels - 4] + png_chunk(b"tEXt", b"a\0b") + b"more" + sound[pixels - 4 :],
        "no end": sound[:end],
        "an end without its checksum": sound[:-4],
        "pixels without their checksum": sound[: end - 4],
    }


@pytest.mark.parametrize("name", broken_pngs())
def test_what_is_wrong_beside_the_pixels_of_a_png_refuses_it_not(pool, name):
    outcome = prepared(pool, broken_pngs()[name])
    assert (outcome.mime, outcome.note) == ("image/png", "")
    assert same(shown(outcome), page())
    assert outcome.data == broken_pngs()[name] or len(outcome.data) < 10_000, "what nobody needs is left out"


def test_a_sound_png_goes_as_it_came_with_all_that_is_beside_its_pixels(pool):
    beside = png_chunk(b"pHYs", bytes(9)) + png_chunk(b"tEXt", b"a\0b") + png_chunk(b"zZzZ", b"of somebody's own")
    data = odd.png(samples(), before=beside)
    assert prepared(pool, data).data == data


def test_a_png_keeps_what_is_clear_when_it_is_mended(pool):
    data = odd.png(samples(), before=png_chunk(b"pHYs", bytes(3)) + png_chunk(b"tRNS", struct.pack(">3H", 255, 255, 255)))
    assert shown(prepared(pool, data)).convert("RGBA").getpixel((0, 0))[3] == 0


def test_a_png_says_how_many_of_its_rows_are_missing(pool):
    noise = np.random.default_rng(0).integers(0, 255, (200, 100, 3), dtype=np.uint8)
    data = odd.png(noise)
    outcome = prepared(pool, data[: len(data) * 9 // 10])
    there = int((np.asarray(shown(outcome)) == noise).all(axis=(1, 2)).argmin())
    assert 170 < there < 185
    assert outcome.note == f"rows_missing: the last {200 - there} of 200 rows are missing"


# JPEG


def test_a_jpeg_needs_no_end_marker(pool):
    data = encoded(photo(160, 120), "JPEG", quality=95)
    outcome = prepared(pool, data[:-2])
    assert outcome.note == ""
    assert same(shown(outcome), odd.opened(data))


def test_a_jpeg_says_how_many_of_its_rows_are_missing(pool):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 160, 3), dtype=np.uint8))
    whole = encoded(image, "JPEG", quality=90, subsampling=0)
    outcome = prepared(pool, whole[: len(whole) * 4 // 5])
    there = (np.asarray(shown(outcome)) == np.asarray(odd.opened(whole))).all(axis=(1, 2))
    first = int(there.argmin())
    assert 170 < first < 210
    assert outcome.note == f"rows_missing: the last {240 - first} of 240 rows are missing"


def test_a_turned_jpeg_without_its_end_marker_is_turned(pool):
    data = encoded(photo(160, 120), "JPEG", quality=95, exif=exif(6))
    assert shown(prepared(pool, data[:-2])).size == (120, 160)


def test_a_progressive_jpeg_without_its_finest_scan_says_what_is_coarse(pool):
    data = encoded(photo(160, 120), "JPEG", quality=95, progressive=True)
    outcome = prepared(pool, data[:-200])
    assert "of 120 rows are only there coarsely" in outcome.note
    assert np.abs(np.asarray(shown(outcome)).astype(int) - np.asarray(odd.opened(data)).astype(int)).mean() < 6


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "junk",
    [
        b"\0\0\0\0",
        b"junk between markers",
        b"\xff\x02\x00",
        b"\xff\xff\xff",
        b"\xff\x00\xff\x00",
        segment(0xE1, b"Exif\0\0not a directory"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM"),
        segment(0xEE, b"Ado"),
    ],
)
def test_junk_between_the_markers_of_a_jpeg_refuses_it_not(pool, junk):
    data = encoded(photo(), "JPEG")
    for at in (data.index(b"\xff\xdb"), data.index(b"\xff\xc4"), data.index(b"\xff\xda")):
        outcome = prepared(pool, data[:at] + junk + data[at:])
        assert same(shown(outcome), odd.opened(data))


def test_a_mended_jpeg_has_its_tables_and_what_they_mean_alone():
    data = encoded(photo(), "JPEG", exif=exif(6), icc_profile=b"p" * 200, comment=b"c" * 300)
    mended = mended_jpeg(data + b"behind the end")
    assert b"ccc" not in mended
    assert b"ppp" in mended
    assert b"Exif" in mended
    assert not mended.endswith(b"\xff\xd9")
    assert jpeg_frame(mended) == jpeg_frame(data)
    assert mended_jpeg(b"\xff\xd8\xff\xe0") == b""


def test_a_progressive_jpeg_whose_first_scans_are_missing_is_not_there():
    data = encoded(photo(160, 120), "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert has_first_passes(data)
    assert not has_first_passes(data[: scans[1]])
    assert not has_first_passes(data[: scans[3]])
    assert is_refined(data)
    assert not is_refined(data[: scans[-1]])


# Others


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_gif_cut_at_its_end_says_how_many_rows_are_missing(pool, interlaced):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160), dtype=np.uint8))
    data = encoded(image, "GIF", interlace=interlaced)
    assert prepared(pool, data[:-1]).note == ""
    outcome = prepared(pool, data[: len(data) * 3 // 4])
    there = int((np.asarray(shown(outcome).convert("L")) == np.asarray(image)).all(axis=1).sum())
    assert 80 < there < 100
    which = "" if interlaced else "the last "
    assert outcome.note == f"rows_missing: {which}{120 - there} of 120 rows are missing"


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "PNG"])
def test_of_a_picture_more_than_half_must_be_there(pool, kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160), dtype=np.uint8))
    data = encoded(image, kind)
    [outcome] = pool([data[: len(data) * 2 // 5]])
    assert isinstance(outcome, Refused)
    assert outcome.code is ItemCode.IMAGE_CORRUPT


# Further pages and frames


def test_further_pages_and_frames_are_told(pool):
    pages = encoded(photo(), "TIFF", save_all=True, append_images=[photo(), photo()])
    assert prepared(pool, pages).note == "several_pages: 3 pages, the first was read"
    for kind in ("GIF", "PNG", "WEBP", "AVIF"):
        assert prepared(pool, animated(kind)).note.partition("; ")[0] == "several_pages: 3 frames, the first was read"


def test_many_pages_are_not_counted_to_their_end(pool):
    first = encoded(photo(20, 10).convert("P"), "GIF")
    at = first.index(b"\x2c")
    many = first[:-1] + first[at:-1] * 5000 + b";"
    assert prepared(pool, many).note == "several_pages: 1000 or more frames, the first was read"


def test_a_thumbnail_in_a_tiff_is_no_page(pool):
    first = bytearray(odd.tiff(samples()))
    second = odd.tiff(samples(), tags={254: (4, [1])})
    start = int.from_bytes(first[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(first[start : start + 2], "little")
    shift = len(first)
    at = int.from_bytes(second[4:8], "little") + shift
    first[end : end + 4] = at.to_bytes(4, "little")
    assert prepared(pool, bytes(first) + second).note == ""


def test_a_dcx_says_how_many_pages_it_has(pool):
    one = converted()["PCX"]
    head = struct.pack("<4I", 0x3ADE68B1, 16, 16 + len(one), 0)
    assert prepared(pool, head + one + one).note == "several_pages: 2 pages, the first was read"
