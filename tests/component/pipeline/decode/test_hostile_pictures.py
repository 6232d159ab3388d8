"""Pictures made to exhaust a decoder or to be taken for something else: each has its code or is right, and harms no other."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from pipeline.decode.pool import DecoderPool
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import picture_files
from tests.fakes.picture_files import animated, encoded, photo

GOOD = picture_files.native()["JPEG"]
#: What is broken by design may end as corrupt, or as too much of something; never as a crash.
REFUSALS = {ItemCode.IMAGE_CORRUPT, ItemCode.IMAGE_TOO_COMPLEX, ItemCode.IMAGE_TOO_MANY_PIXELS, ItemCode.UNSUPPORTED_FORMAT}


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1) as pool:
        yield pool


@pytest.fixture(autouse=True)
def the_next_one_is_unharmed(pool):
    yield
    assert list(pool([GOOD])) == [Prepared(data=GOOD, mime="image/jpeg", width=48, height=32, source_format="JPEG")]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: tuple[bytes, bytes], width: int = 4, height: int = 4) -> bytes:
    """A black RGB picture with further chunks before its pixels."""
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = (b"IDAT", zlib.compress(bytes(height * (1 + 3 * width))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in (head, *chunks, pixels, (b"IEND", b"")))


def is_red(outcome: Prepared | Refused) -> bool:
    assert isinstance(outcome, Prepared), outcome
    with Image.open(io.BytesIO(outcome.data), formats=["PNG"]) as shown:
        red, green, blue = shown.convert("RGB").getpixel((1, 1))
    return red > 245 and green < 10 and blue < 10


# A hundred thousand frames


def gif_of_many_frames() -> bytes:
    first = encoded(Image.new("RGB", (20, 10), "red"), "GIF")
    at = first.index(b"\x2c")  # the frame's descriptor, up to the trailer
    return first[:-1] + first[at:-1] * 99_999 + b";"


def png_of_many_frames() -> bytes:
    moving = animated("PNG")
    at = moving.rindex(b"fcTL") - 4  # the last frame: its control and its data
    frame = moving[at : moving.index(b"IEND") - 4]
    actl = moving.index(b"acTL") - 4
    many = chunk(b"acTL", struct.pack(">II", 100_000, 0))
    frames, number = bytearray(), 3
    data = frame[frame.index(b"fdAT") + 8 : -4]
    for _ in range(99_997):
        frames += chunk(b"fcTL", struct.pack(">I", number) + frame[12 : 12 + 22])
        frames += chunk(b"fdAT", struct.pack(">I", number + 1) + data)
        number += 2
    return moving[:actl] + many + moving[actl + len(many) : at] + bytes(frames) + moving[at:]


def webp_of_many_frames() -> bytes:
    moving = animated("WEBP")
    at = moving.rindex(b"ANMF")
    body = moving[8:at] + moving[at:] * 99_997
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("make", [gif_of_many_frames, png_of_many_frames, webp_of_many_frames])
def test_of_a_hundred_thousand_frames_the_first_is_shown(pool, make):
    data = make()
    assert len(data) > 2_000_000
    assert is_red(*pool([data]))


# Loops


def test_a_tiff_directory_that_follows_itself_is_read_once(pool):
    data = bytearray(encoded(Image.new("RGB", (8, 8), "red"), "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[end : end + 4] = data[4:8]
    assert is_red(*pool([bytes(data)]))


def test_an_exif_directory_that_holds_itself_ends(pool):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    assert isinstance(next(pool([encoded(photo(), "JPEG", exif=exif)])), Prepared)


def test_an_mpo_whose_pictures_are_itself_ends(pool):
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo()])
    at = data.index(b"MPF\0")
    entries = data.index(b"\x02\xb0", at)
    broken = (
        data[:entries]
        + data[entries : entries + 60].replace(data[entries + 20 : entries + 24], b"\0\0\0\0")
        + data[entries + 60 :]
    )
    assert isinstance(next(pool([broken])), Prepared)


def test_a_heif_grid_that_is_made_of_itself_ends(pool):
    data = bytearray(picture_files.native()["HEIC"])
    at = data.index(b"infe")
    data[at:] = bytes(data[at:]).replace(b"hvc1", b"grid", 1)
    [outcome] = pool([bytes(data)])
    assert isinstance(outcome, Refused)
    assert outcome.code in REFUSALS


# No size, and too much of it


def with_bytes(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


ZERO = {
    "PNG": png(width=0, height=0),
    "PNG of no height": png(height=0),
    "GIF": with_bytes(picture_files.converted()["GIF"], 6, bytes(4)),
    "BMP": with_bytes(picture_files.converted()["BMP"], 18, bytes(8)),
    "BMP of least height": with_bytes(picture_files.converted()["BMP"], 22, b"\0\0\0\x80"),
    "TIFF": picture_files.tiff([(256, 4, 0), (257, 4, 0), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 0)]),
    "JPEG": with_bytes(GOOD, GOOD.index(b"\xff\xc0") + 5, bytes(4)),
    "WebP": with_bytes(encoded(photo(), "WEBP"), 26, bytes(4)),
    "PPM": b"P6 0 0 255\n",
    "PPM of less than nothing": b"P6 -4 -4 255\n" + bytes(48),
    "PSD": with_bytes(picture_files.converted()["PSD"], 14, bytes(8)),
    "QOI": with_bytes(picture_files.converted()["QOI"], 4, bytes(8)),
    "SGI": with_bytes(picture_files.converted()["SGI"], 6, bytes(4)),
    "PCX": with_bytes(picture_files.converted()["PCX"], 8, b"\0\0\0\0"),
    "DDS": with_bytes(picture_files.converted()["DDS"], 12, bytes(8)),
    "TGA": with_bytes(picture_files.converted()["TGA"], 12, bytes(4)),
    "SUN": with_bytes(picture_files.converted()["SUN"], 4, bytes(8)),
    "JPEG 2000": b"\xff\x4f\xff\x51\0\x29" + bytes(41),
    "JPEG XL": b"\xff\x0a" + bytes(30),
    "HEIC": picture_files.native()["HEIC"].replace(b"ispe" + bytes(4) + picture_files.native()["HEIC"].partition(b"ispe")[2][4:12], b"ispe" + bytes(12)),
}  # fmt: skip


@pytest.mark.parametrize("name", ZERO)
def test_a_picture_without_any_size_has_its_code(pool, name):
    [outcome] = pool([ZERO[name]])
    if isinstance(outcome, Prepared):  # a header that a second one overrules
        assert (outcome.width > 0, outcome.height > 0) == (True, True)
    else:
        assert outcome.code in REFUSALS


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt"])
def test_what_swells_beside_the_pixels_of_a_png_takes_no_memory(pool, name):
    body = zlib.compress(bytes(200_000_000), 1)
    head = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\x01\0\0\0"}[name]
    [outcome] = pool([png((name, head + body))])
    assert isinstance(outcome, Prepared) or outcome.code in REFUSALS


def test_many_text_chunks_that_swell_together_take_no_memory(pool):
    body = zlib.compress(bytes(1_000_000), 9)
    [outcome] = pool([png(*[(b"zTXt", b"x\0\0" + body)] * 2000)])
    assert isinstance(outcome, Prepared) or outcome.code in REFUSALS


def test_a_strip_that_swells_beyond_its_picture_takes_no_memory(pool):
    data = encoded(Image.new("L", (64, 64)), "TIFF", compression="tiff_adobe_deflate")
    bomb = zlib.compress(bytes(200_000_000), 1)
    strip = data.index(b"\x78")
    [outcome] = pool([data[:strip] + bomb + data[strip:]])
    assert isinstance(outcome, Prepared) or outcome.code in REFUSALS


def test_an_icon_of_sixty_thousand_pictures_ends(pool):
    picture = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    entry = struct.pack("<BBBBHHII", 8, 8, 0, 0, 1, 32, len(picture), 6 + 16 * 60_000)
    [outcome] = pool([b"\0\0\x01\0" + struct.pack("<H", 60_000) + entry * 60_000 + picture])
    assert isinstance(outcome, Prepared) or outcome.code in REFUSALS


# Two things at once


@pytest.mark.parametrize(
    "tail", [b"%PDF-1.7\n", b"PK\x03\x04", b"<svg onload='x'/>", b"<script>x</script>", GOOD, b"#!/bin/sh\n"]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WebP", "BMP"])
def test_what_hangs_behind_a_picture_changes_nothing_of_it(pool, kind, tail):
    data = {**picture_files.native(), **picture_files.converted()}[kind]
    plain, outcome = pool([data, data + tail])
    assert isinstance(plain, Prepared)
    assert isinstance(outcome, Prepared)
    assert (outcome.source_format, outcome.width, outcome.height) == (kind, plain.width, plain.height)
    assert outcome.data in (plain.data, data + tail)


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n" + GOOD,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + GOOD,
        b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 9) + bytes(20) + b"%!PS" + GOOD,
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>",
        b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
        b"push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'https://127.0.0.1/x.php?x=`id`'\npop graphic-context",
        b"@/etc/passwd",
        b"/etc/passwd",
    ],
)
def test_what_other_programs_would_run_or_read_is_not_opened_at_all(data):
    with DecoderPool(1, command=("/no/such/program",)) as none:
        [outcome] = none([data])
    assert isinstance(outcome, Refused)
    assert outcome.code is ItemCode.UNSUPPORTED_FORMAT


# More parts than any encoder writes


RED = Image.new("RGB", (4, 4), "red")


def grown(data: bytes, name: bytes, added: bytes) -> bytes:
    """The file with `added` at the front of the box `name`, whose length grows."""
    at = data.index(name) - 4
    length = int.from_bytes(data[at : at + 4]) + len(added)
    return data[:at] + length.to_bytes(4) + data[at + 4 : at + 8] + added + data[at + 8 :]


def before(kind: str, mark: bytes, back: int, part: bytes) -> Callable[[int], bytes]:
    """A file of `kind` with so many parts `back` bytes before the first `mark`."""

    def make(number: int) -> bytes:
        data = encoded(RED, kind)
        at = data.index(mark) - back
        return data[:at] + part * number + data[at:]

    return make


def tiff_of(entries: list[tuple[int, int, int, int]], after: bytes = b"") -> bytes:
    """A grey TIFF of one strip, with further entries of tag, type, count and value."""
    usual = [
        (256, 3, 1, 4),
        (257, 3, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (279, 4, 1, 16),
    ]
    last = {entry[0]: entry for entry in usual}
    every = [*(last | {entry[0]: entry for entry in entries if entry[0] < 330}).values(), *(e for e in entries if e[0] >= 330)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(every))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(every)) + table + bytes(4) + after


#: Makes a file of a number of the smallest parts, and how many of them are still taken.
OF_PARTS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "PNG chunks before the pixels": (lambda number: png(*[(b"abCd", b"")] * number), 40_000),
    "PNG chunks of pixels": (lambda number: png(*[(b"IDAT", b"")] * number), 40_000),
    "PNG chunks with wrong checksums": (before("PNG", b"IDAT", 4, chunk(b"abCd", b"")[:-1] + b"?"), 40_000),
    "GIF blocks": (before("GIF", b"\x2c", 0, b"\x21\xfe\0"), 40_000),
    "GIF parts of a comment": (lambda number: before("GIF", b"\x2c", 0, b"\x21\xfe" + b"\x01a" * number + b"\0")(1), 40_000),
    "JPEG segments": (before("JPEG", b"\xff\xdb", 0, b"\xff\xfe\0\x02"), 900),
    "JPEG markers without a length": (before("JPEG", b"\xff\xdb", 0, b"\xff\x01"), 0),
    "JPEG segments of Exif": (before("JPEG", b"\xff\xdb", 0, b"\xff\xe1\0\x09Exif\0\0?"), 90),
    "JPEG padding": (before("JPEG", b"\xff\xdb", 0, b"\xff"), 200_000),
    "JPEG resources of Photoshop": (
        before(
            "JPEG", b"\xff\xdb", 0, b"\xff\xed\xff\xfc" + (b"Photoshop 3.0\0" + 5460 * b"8BIM\x04\x04" + bytes(65_530))[:65_530]
        ),
        9,
    ),
    "HEIC boxes": (lambda number: encoded(RED, "HEIF") + b"\0\0\0\x08free" * number, 900),
    "AVIF boxes": (lambda number: encoded(RED, "AVIF") + b"\0\0\0\x08free" * number, 900),
    "JPEG 2000 boxes": (before("JPEG2000", b"jp2h", 4, b"\0\0\0\x08free"), 40_000),
    "JPEG 2000 boxes in the header": (
        lambda number: grown(encoded(RED, "JPEG2000"), b"jp2h", b"\0\0\0\x08free" * number),
        40_000,
    ),
    "TIFF tags": (lambda number: tiff_of([(40_000 + n, 3, 1, 0) for n in range(min(number, 2_000))]), 900),
    "TIFF strips": (lambda number: tiff_of([(273, 4, number, 122), (279, 4, number, 122)], bytes(4 * number)), 0),
    "PPM comments": (lambda number: b"P6\n" + b"#\n" * number + b"4 4 255\n" + b"\xff\0\0" * 16, 900),
    "PPM comments among the pixels": (lambda number: b"P3 4 4 255\n" + b"#\n" * number + b"255 0 0\n" * 16, 900),
    "PSD resources": (
        lambda number: (
            b"8BPS\0\1"
            + bytes(6)
            + struct.pack(">HIIHHII", 3, 4, 4, 8, 3, 0, 12 * number)
            + b"8BIM\4\0\0\0\0\0\0\0" * number
            + bytes(54)
        ),
        40_000,
    ),
    "ICNS blocks": (lambda number: b"icns" + struct.pack(">I", 8 + 8 * number) + b"abcd\0\0\0\x08" * number, 0),
    "XPM lines": (lambda number: b"/* XPM */\n" + b"\n" * number, 0),
}


@pytest.mark.parametrize("name", OF_PARTS)
def test_far_more_parts_than_encoders_write_are_refused_before_decoding_and_what_they_may_write_is_not(pool, name):
    make, taken = OF_PARTS[name]
    [outcome] = pool([make(300_000 if "resources of Photoshop" not in name else 100)])
    assert isinstance(outcome, Refused), name
    assert (outcome.code, outcome.detail[:47]) == (ItemCode.IMAGE_TOO_COMPLEX, "The image has far more chunks, segments, blocks")
    if taken:
        [outcome] = pool([make(taken)])
        assert isinstance(outcome, Prepared), outcome


def test_a_damaged_jpeg_or_a_progressive_one_of_many_segments_is_refused_where_they_are_counted(pool):
    whole = encoded(RED, "JPEG", progressive=True)
    scans = whole[:-2] + b"\xff\xfe\0\x04\xff\xda" * 100_000 + whole[-2:]
    cut = whole[:-2] + b"\xff\xfe\0\x02" * 100_000
    assert [outcome.code for outcome in pool([scans, cut])] == [ItemCode.IMAGE_TOO_COMPLEX] * 2


def test_a_jpeg_with_a_restart_for_each_block_is_taken(pool):
    noise = Image.effect_noise((1600, 1600), 90)
    data = encoded(noise, "JPEG", restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") > 4_000
    assert isinstance(*pool([data]), Prepared)
