"""Decoding in real child processes: what comes out and what is refused."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageCms

from pipeline.decode import jpeg_xl
from pipeline.decode.png import to_png
from pipeline.decode.pool import DecoderPool
from pipeline.decode.sniff import CONVERTED_FORMATS, NATIVE_FORMATS
from pipeline.ports import Decode
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import picture_files
from tests.fakes.picture_files import animated, encoded, exif, photo

GOOD = picture_files.native()["JPEG"]


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(2) as pool:
        yield pool


def prepared(decode: Decode, data: bytes) -> Prepared:
    [outcome] = decode([data])
    assert isinstance(outcome, Prepared), outcome
    return outcome


def refused(decode: Decode, data: bytes) -> Refused:
    [outcome] = decode([data])
    assert isinstance(outcome, Refused), outcome.source_format
    return outcome


def picture(outcome: Prepared) -> Image.Image:
    image = Image.open(io.BytesIO(outcome.data), formats=["PNG"])
    image.load()
    assert image.size == (outcome.width, outcome.height)
    return image


def same(one: Image.Image, other: Image.Image) -> bool:
    return (
        one.size == other.size
        and ImageChops.difference(one.convert("RGBA"), other.convert("RGBA")).getbbox(alpha_only=False) is None
    )


# What comes out


@pytest.mark.parametrize("kind", NATIVE_FORMATS)
def test_a_native_picture_goes_on_as_it_came(pool, kind):
    data = picture_files.native()[kind]
    assert list(pool([data])) == [Prepared(data=data, mime=NATIVE_FORMATS[kind], width=48, height=32, source_format=kind)]


@pytest.mark.parametrize("kind", CONVERTED_FORMATS)
def test_any_other_picture_becomes_a_png_of_the_same_pixels(pool, kind):
    data = picture_files.converted()[kind]
    outcome = prepared(pool, data)
    assert (outcome.mime, outcome.source_format) == ("image/png", kind)
    with Image.open(io.BytesIO(data)) as plain:
        # Pillow shows an XBM with black and white exchanged.
        assert same(picture(outcome), ImageChops.invert(plain) if kind == "XBM" else plain)
    shown = picture(outcome).convert("RGB")
    assert shown.getpixel((0, 0)) != shown.getpixel((shown.width - 1, shown.height - 1)), "a picture, not a flat field"


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("big", [False, True])
def test_tiffs_of_many_kinds_are_read(pool, order, compression, big):
    image = photo()
    if order == "big":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(">u2") * 257)
    data = encoded(image, "TIFF", compression=compression, big_tiff=big)
    assert same(picture(prepared(pool, data)), photo().convert("L") if order == "big" else photo())


def test_a_fax_stays_one_bit_a_pixel(pool):
    line = photo().convert("1")
    shown = picture(prepared(pool, encoded(line, "TIFF", compression="group4")))
    assert shown.mode == "1"
    assert same(shown, line)


def test_a_palette_stays_a_palette_unless_one_of_its_colours_is_clear_and_used(pool):
    image = photo().quantize(16)
    assert picture(prepared(pool, encoded(image, "GIF"))).mode == "P"
    shown = picture(prepared(pool, encoded(image, "GIF", transparency=3)))
    clear = np.asarray(image) == 3
    assert clear.any()
    # A model lays what is clear on a ground of its own choice, so we choose one: every PNG that we make is opaque.
    assert (shown.mode, set(np.asarray(shown)[clear].flat)) == ("RGB", {255})
    assert np.array_equal(np.asarray(shown)[~clear], np.asarray(image.convert("RGB"))[~clear])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_alpha_channel_is_laid_on_white(pool, mode):
    image = photo().convert(mode)
    image.putalpha(photo().convert("L"))
    shown = picture(prepared(pool, encoded(image, "TIFF")))
    assert shown.mode == mode.removesuffix("A")
    over = image.convert("RGBA")
    assert (
        np.abs(
            np.asarray(shown.convert("RGB")).astype(int)
            - np.asarray(Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")).astype(int)
        ).max()
        <= 1
    )


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_become_rgb(pool, mode):
    shown = picture(prepared(pool, encoded(photo().convert(mode), "TIFF")))
    assert shown.mode == "RGB"
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(photo()).astype(int)).mean() < 6


def test_a_jpeg_with_more_pictures_in_it_is_a_jpeg(pool):
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo(96, 64)])
    outcome = prepared(pool, data)
    assert (outcome.data, outcome.mime, outcome.width) == (data, "image/jpeg", 48)


def test_a_jpeg_with_a_pdf_behind_it_is_a_jpeg(pool):
    data = GOOD + b"%PDF-1.7\n1 0 obj\n"
    assert prepared(pool, data).source_format == "JPEG"


@pytest.mark.parametrize(
    ("kind", "source"), [("PNG", "PNG"), ("WEBP", "WebP"), ("GIF", "GIF"), ("AVIF", "AVIF"), ("TIFF", "TIFF")]
)
def test_of_a_moving_picture_the_first_frame_is_shown(pool, kind, source):
    outcome = prepared(pool, animated(kind))
    red, green, blue = picture(outcome).convert("RGB").getpixel((10, 5))
    assert (red > 245, green < 10, blue < 10) == (True, True, True)
    assert (outcome.mime, outcome.source_format) == ("image/png", source)


def test_a_moving_jpeg_xl_is_refused_by_name(pool):
    outcome = refused(pool, picture_files.ANIMATED_JPEG_XL)
    assert outcome.code is ItemCode.UNSUPPORTED_FORMAT
    assert "JPEG XL is an animation" in outcome.detail


def test_where_there_is_no_decoder_for_jpeg_xl_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylibjxl", None)
    jpeg_xl._codec.cache_clear()
    outcome = jpeg_xl.open_jpeg_xl(picture_files.TURNED_JPEG_XL)
    assert isinstance(outcome, Refused)
    assert outcome.code is ItemCode.UNSUPPORTED_FORMAT
    assert "on this machine" in outcome.detail


def test_a_jpeg_xl_of_too_many_pixels_is_refused_by_its_header(pool):
    wide = Image.new("L", (30_001, 4))
    assert refused(pool, encoded(wide, "JXL", lossless=True)).code is ItemCode.IMAGE_TOO_MANY_PIXELS


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1), (1234, 567), (2100, 2000)])
def test_every_shape_of_picture_survives_the_png_writer(mode, width, height):
    image = photo(37, 23).resize((width, height)).convert(mode)
    if "A" in mode:
        image.putalpha(image.getchannel(0))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.open(io.BytesIO(to_png(image, icc_profile=profile)), formats=["PNG"]) as shown:
        assert (shown.mode, shown.size, shown.tobytes()) == (mode, image.size, image.tobytes())
        assert shown.info["icc_profile"] == profile


# Depth


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_a_16_bit_scan_keeps_its_greys(pool, order):
    levels = np.linspace(0, 65535, 48 * 32).astype(order).reshape(32, 48)
    shown = picture(prepared(pool, encoded(Image.fromarray(levels), "TIFF")))
    assert np.array_equal(np.asarray(shown), np.rint(levels / 257).astype(np.uint8))


def test_a_flat_mid_grey_of_16_bits_stays_mid_grey(pool):
    shown = picture(prepared(pool, encoded(Image.fromarray(np.full((8, 8), 32768, np.uint16)), "TIFF")))
    assert set(np.asarray(shown).flat) == {128}


def test_twelve_bits_in_sixteen_are_not_shown_black(pool):
    levels = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    shown = np.asarray(picture(prepared(pool, encoded(Image.fromarray(levels), "TIFF"))))
    assert np.array_equal(shown, np.rint(levels * (255 / 4095)).astype(np.uint8))


def test_a_16_bit_negative_is_turned_around(pool):
    levels = np.linspace(0, 65535, 256).astype("<u2").reshape(16, 16)
    data = encoded(Image.fromarray(levels), "TIFF", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(data)).tag_v2[262] == 0
    shown = np.asarray(picture(prepared(pool, data)))
    assert np.array_equal(shown, 255 - np.rint(levels / 257).astype(np.uint8))


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-(2**31), 2**31 - 1, 1024).astype(np.int32),
        np.linspace(-5, 5000, 1024).astype(np.int32),
        np.linspace(0, 1, 1024).astype(np.float32),
        np.linspace(-3e38, 3e38, 1024).astype(np.float32),
        np.linspace(1e6, 1e6 + 64, 1024).astype(np.float32),
    ],
)
def test_32_bit_pictures_are_stretched_from_their_least_to_their_greatest(pool, values):
    shown = np.asarray(picture(prepared(pool, encoded(Image.fromarray(values.reshape(32, 32)), "TIFF")))).ravel()
    wide = values.astype(np.float64)
    assert np.abs(shown - (wide - wide[0]) * (255 / (wide[-1] - wide[0]))).max() <= 0.51


def test_what_is_no_number_spoils_no_picture(pool):
    values = np.linspace(0, 1, 1024).astype(np.float32)
    values[:3] = np.nan, np.inf, -np.inf
    shown = np.asarray(picture(prepared(pool, encoded(Image.fromarray(values.reshape(32, 32)), "TIFF")))).ravel()
    assert (shown[0], shown[1], shown[2], shown[-1]) == (0, 255, 0, 255)
    assert np.array_equal(shown[3:], np.sort(shown[3:]))


@pytest.mark.parametrize("values", [np.full((4, 4), np.nan, np.float32), np.full((4, 4), 7, np.int32)])
def test_a_32_bit_picture_of_one_value_is_black(pool, values):
    shown = picture(prepared(pool, encoded(Image.fromarray(values), "TIFF")))
    assert set(np.asarray(shown).flat) == {0}


def test_a_16_bit_pgm_keeps_its_greys(pool):
    levels = np.linspace(0, 1000, 256).astype(">u2").reshape(16, 16)
    shown = np.asarray(picture(prepared(pool, b"P5 16 16 65535\n" + levels.tobytes())))
    assert shown.max() == 255 * 1000 // 1023, "ten bits in sixteen"


def test_an_icc_profile_stays_with_the_pixels_it_speaks_of(pool):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert picture(prepared(pool, encoded(photo(), "TIFF", icc_profile=profile))).info["icc_profile"] == profile
    cmyk = prepared(pool, encoded(photo().convert("CMYK"), "TIFF", icc_profile=profile[:16] + b"CMYK" + profile[20:]))
    assert "icc_profile" not in picture(cmyk).info


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_size_of_a_native_picture_is_told_as_it_is_seen(pool, kind, orientation):
    data = encoded(photo(), kind, exif=exif(orientation))
    outcome = prepared(pool, data)
    if orientation == 1:  # the others are turned: test_upright.py
        assert outcome.data == data
    assert (outcome.width, outcome.height) == ((32, 48) if orientation > 4 else (48, 32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_is_turned_as_its_tag_says(pool, orientation, compression):
    outcome = prepared(pool, encoded(photo(), "TIFF", exif=exif(orientation), compression=compression))
    assert same(picture(outcome), upright(photo(), orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_as_its_properties_say(pool, orientation):
    image = Image.new("RGB", (64, 32), "white")
    image.paste("red", (0, 0, 32, 16))  # fields large enough to survive lossy coding
    image.paste("blue", (32, 0, 64, 16))
    shown = picture(prepared(pool, encoded(image, "AVIF", exif=exif(orientation), quality=100, subsampling="4:4:4")))
    wanted = upright(image, orientation)
    assert shown.size == wanted.size
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(wanted).astype(int)).max() < 16


def test_a_heic_is_seen_as_its_properties_say(pool):
    data = encoded(photo(64, 32), "HEIF", exif=exif(6).tobytes())
    assert b"irot" in data, "the property, which counts, not the tag beside it"
    assert (prepared(pool, data).width, prepared(pool, data).height) == (32, 64)


def test_a_jpeg_xl_is_turned_as_its_header_says(pool):
    shown = picture(prepared(pool, picture_files.TURNED_JPEG_XL))
    assert shown.size == (32, 64)
    assert (shown.getpixel((31, 0)), shown.getpixel((31, 63))) == ((255, 0, 0), (0, 0, 255))


def test_a_damaged_orientation_tag_refuses_no_picture(pool):
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f damaged")
    assert prepared(pool, data).width == 48


def upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = Image.Transpose
    turns = (
        None,
        turn.FLIP_LEFT_RIGHT,
        turn.ROTATE_180,
        turn.FLIP_TOP_BOTTOM,
        turn.TRANSPOSE,
        turn.ROTATE_270,
        turn.TRANSVERSE,
        turn.ROTATE_90,
    )
    how = turns[orientation - 1]
    return image if how is None else image.transpose(how)


# What is refused


def test_what_is_no_picture_needs_no_child():
    with DecoderPool(1, command=("/no/such/program",)) as pool:
        assert refused(pool, b"").code is ItemCode.IMAGE_EMPTY
        assert refused(pool, b"%PDF-1.7").code is ItemCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("kind", [*NATIVE_FORMATS, *CONVERTED_FORMATS])
def test_a_picture_that_is_cut_short_is_corrupt(pool, kind):
    data = {**picture_files.native(), **picture_files.converted()}[kind]
    footer = data[-26:] if kind == "TGA" else b""  # without it nothing tells that it is one
    outcome = refused(pool, data[: len(data) // 4] + footer)
    assert outcome.code is ItemCode.IMAGE_CORRUPT
    assert kind in outcome.detail


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_before_its_end_is_corrupt_or_says_what_is_missing(pool, progressive):
    data = encoded(photo(160, 120), "JPEG", quality=95, progressive=progressive)
    became = []
    for cut in range(700, len(data) - 40, 97):
        with pytest.raises(OSError, match="truncated"), Image.open(io.BytesIO(data[:cut])) as plain:
            plain.load()
        [outcome] = pool([data[:cut]])
        if isinstance(outcome, Prepared):
            assert outcome.note.startswith("rows_missing: the last ")
        else:
            assert outcome.code is ItemCode.IMAGE_CORRUPT
        became.append(isinstance(outcome, Prepared))
    assert became == sorted(became), "the more there is of it, the better"
    assert set(became) == {False, True}


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_001), (30_001, 10), (10, 30_001), (20_000, 20_000)])
def test_too_many_pixels_are_refused(pool, width, height):
    outcome = refused(pool, picture_files.png_of(width, height))
    assert outcome.code is ItemCode.IMAGE_TOO_MANY_PIXELS
    assert "50 million" in outcome.detail


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_000), (30_000, 10)])
def test_fifty_million_pixels_and_long_strips_are_taken(pool, width, height):
    assert prepared(pool, picture_files.png_of(width, height)).width == width


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "HEIF"])
def test_a_bomb_of_any_format_is_refused_by_its_header(pool, kind):
    if kind == "PPM":
        data = b"P5 60000 60000 255\n" + bytes(1000)
    elif kind == "GIF":
        data = bytearray(picture_files.converted()["GIF"])
        data[6:10] = b"\xff\xff\xff\xff"
    elif kind == "BMP":
        data = bytearray(picture_files.converted()["BMP"])
        data[18:26] = (60_000).to_bytes(4, "little") * 2
    elif kind == "TIFF":
        data = picture_files.tiff(
            [
                (256, 4, 60_000),
                (257, 4, 60_000),
                (258, 3, 8),
                (259, 3, 1),
                (262, 3, 1),
                (273, 4, 8),
                (278, 4, 60_000),
                (279, 4, 99),
            ]
        )
    elif kind == "WEBP":
        data = bytearray(encoded(photo(), "WEBP", exif=exif(1)))
        data[24:30] = b"\x00\x40\x00\x00\x40\x00"  # the canvas, less one, of 16385 x 16385
    else:
        data = bytearray(picture_files.native()["HEIC"])
        at = data.index(b"ispe") + 8
        data[at : at + 8] = (30_000).to_bytes(4, "big") * 2
    outcome = refused(pool, bytes(data))
    assert outcome.code in {ItemCode.IMAGE_TOO_MANY_PIXELS, ItemCode.IMAGE_CORRUPT}
    assert outcome.code is ItemCode.IMAGE_TOO_MANY_PIXELS or kind == "HEIF", "libheif compares it with the coded size"


def test_a_jpeg_of_a_hundred_scans_is_taken_and_one_of_more_is_too_complex(pool):
    assert prepared(pool, picture_files.jpeg_of_many_scans(100)).source_format == "JPEG"
    assert refused(pool, picture_files.jpeg_of_many_scans(101)).code is ItemCode.IMAGE_TOO_COMPLEX
    assert refused(pool, picture_files.jpeg_of_many_scans(200_000)).code is ItemCode.IMAGE_TOO_COMPLEX


def test_a_tiff_of_very_many_pages_costs_no_more_than_its_first(pool):
    page = picture_files.converted()["TIFF"]
    first = int.from_bytes(page[4:8], "little")
    count = int.from_bytes(page[first : first + 2], "little")
    end = first + 2 + 12 * count
    pages = bytearray(page)
    pages[end : end + 4] = len(page).to_bytes(4, "little")
    for at in range(len(page), len(page) + 150_000 * 6, 6):
        pages += bytes(2) + (at + 6).to_bytes(4, "little")
    with DecoderPool(1, seconds=5) as quick:
        assert same(picture(prepared(quick, bytes(pages))), photo())


def test_a_picture_that_needs_more_memory_than_there_is_is_too_complex():
    with DecoderPool(1, memory=200_000_000) as pool:
        outcome = refused(pool, encoded(Image.new("RGB", (7000, 7000)), "PNG"))
        assert outcome.code is ItemCode.IMAGE_TOO_COMPLEX
        assert "memory" in outcome.detail
        assert prepared(pool, GOOD)
