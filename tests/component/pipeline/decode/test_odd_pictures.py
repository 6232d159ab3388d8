"""Variants of formats that decoders get wrong: each shows the page it holds, or is refused by the variant's name."""

from __future__ import annotations

import io
import re
import struct
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageChops

from pipeline.decode.pool import DecoderPool
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import odd_picture_files as odd
from tests.fakes.odd_picture_files import page, samples
from tests.fakes.picture_files import converted, encoded, photo


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1) as pool:
        yield pool


def prepared(pool: DecoderPool, data: bytes) -> Prepared:
    [outcome] = pool([data])
    assert isinstance(outcome, Prepared), outcome
    return outcome


def refused(pool: DecoderPool, data: bytes) -> Refused:
    [outcome] = pool([data])
    assert isinstance(outcome, Refused), outcome.source_format
    return outcome


def shown(pool: DecoderPool, data: bytes) -> Image.Image:
    outcome = prepared(pool, data)
    image = odd.opened(outcome.data)
    assert image.size == (outcome.width, outcome.height)
    assert isinstance(image, Image.Image)
    return image


def furthest(one: Image.Image, other: Image.Image) -> int:
    """The greatest difference of any sample of any pixel."""
    assert one.size == other.size
    extrema = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()
    return max(most for _, most in extrema)


# TIFF


def _differenced_bits(floats: np.ndarray) -> bytes:
    """Predictor 2 of floats: the differences of their bits, taken as integers."""
    return odd.tiff(floats.view(np.uint32), bits=32, predictor=2, tags={339: (3, [3, 3, 3])})


@cache
def tiffs() -> dict[str, tuple[bytes, str, int]]:
    """File, what it shows, and how far it may be off."""
    rgb, grey = samples(), samples("L")
    deep, deep_grey = rgb.astype(np.uint16) * 257, grey.astype(np.uint16) * 257
    floats = (rgb / 255).astype(np.float32)
    full = np.full_like(grey, 255)
    found = {
        "planar RGB 16": (odd.tiff(deep, bits=16, planar=True), "RGB", 0),
        "planar RGB 16, big-endian, deflate, predictor, strips": (
            odd.tiff(deep, bits=16, planar=True, order=">", deflate=True, predictor=2, rows_per_strip=7),
            "RGB",
            0,
        ),
        "RGB 16 in tiles, predictor": (odd.tiff(deep, bits=16, tile=16, deflate=True, predictor=2), "RGB", 0),
        "RGB of 10 bits in 16": (odd.tiff((rgb.astype(np.uint32) * 1023 // 255).astype(np.uint16), bits=16), "RGB", 1),
        "RGB 32": (odd.tiff(rgb.astype(np.uint32) * 0x1010101, bits=32), "RGB", 0),
        "grey 32": (odd.tiff(grey.astype(np.uint32) * 0x1010101, bits=32, photometric=1), "L", 0),
        "grey 32, big-endian": (odd.tiff(grey.astype(np.uint32) * 0x1010101, bits=32, photometric=1, order=">"), "L", 0),
        "grey 32 of 8 bits": (odd.tiff(grey.astype(np.uint32), bits=32, photometric=1), "L", 0),
        "white is zero, grey 32": (odd.tiff(0xFFFFFFFF - grey.astype(np.uint32) * 0x1010101, bits=32, photometric=0), "L", 0),
        "grey 24": (odd.tiff(grey.astype(np.uint32) * 0x10101, bits=24, photometric=1), "L", 0),
        "grey 12": (odd.tiff(grey.astype(np.uint32) * 4095 // 255, bits=12, photometric=1), "L", 1),
        "grey 12, big-endian": (odd.tiff(grey.astype(np.uint32) * 4095 // 255, bits=12, photometric=1, order=">"), "L", 1),
        "RGB 4": (odd.tiff(rgb >> 4, bits=4), "RGB", 15),
        "RGB float": (odd.tiff(floats, bits=32), "RGB", 0),
        "RGB float, predictor": (odd.tiff(floats, bits=32, deflate=True, predictor=3), "RGB", 0),
        "RGB float, predictor of integers": (_differenced_bits(floats), "RGB", 0),
        "RGB float of bytes": (odd.tiff(rgb.astype(np.float32), bits=32), "RGB", 0),
        "RGB half float": (odd.tiff(floats.astype(np.float16), bits=16), "RGB", 0),
        "RGB half float, big-endian, predictor": (
            odd.tiff(floats.astype(np.float16), bits=16, order=">", deflate=True, predictor=3),
            "RGB",
            0,
        ),
        "grey half float": (odd.tiff((grey / 255).astype(np.float16), bits=16, photometric=1), "L", 0),
        "RGB double": (odd.tiff(rgb / 255, bits=64), "RGB", 0),
        "grey 16 with alpha": (
            odd.tiff(np.concatenate([deep_grey, full * np.uint16(257)], 2), bits=16, photometric=1, tags={338: (3, [2])}),
            "L",
            0,
        ),
        "planar grey with alpha": (
            odd.tiff(np.concatenate([grey, full], 2), photometric=1, planar=True, tags={338: (3, [2])}),
            "L",
            0,
        ),
        "planar RGB with alpha": (odd.tiff(np.concatenate([rgb, full], 2), planar=True, tags={338: (3, [2])}), "RGB", 0),
        "grey with an unspecified sample": (odd.tiff(np.concatenate([grey, grey // 2], 2), photometric=1, tags={338: (3, [0])}), "L", 0),
        "planar RGB with two unspecified samples": (
            odd.tiff(np.concatenate([rgb, grey, grey], 2), planar=True, tags={338: (3, [0, 0])}),
            "RGB",
            0,
        ),
        "RGB with an unspecified sample and alpha before it": (
            odd.tiff(np.concatenate([rgb, full, grey], 2), bits=8, tags={338: (3, [2, 0])}),
            "RGB",
            0,
        ),
        "BigTIFF": (odd.tiff(rgb, big=True, rows_per_strip=9), "RGB", 0),
        "BigTIFF, big-endian": (odd.tiff(rgb, big=True, order=">", rows_per_strip=9), "RGB", 0),
        "BigTIFF, big-endian, grey, tiles": (odd.tiff(grey, photometric=1, big=True, order=">", tile=16, deflate=True), "L", 0),
        "BigTIFF, big-endian, RGB 16": (odd.tiff(deep, bits=16, big=True, order=">"), "RGB", 0),
        "CMYK with an extra sample": (
            odd.tiff(np.concatenate([samples("CMYK"), grey], 2), photometric=5, tags={338: (3, [0])}),
            "RGB",
            1,
        ),
        "grey that is called signed": (odd.tiff(grey, photometric=1, tags={339: (3, [2])}), "L", 0),
        "planar CMYK 16": (odd.tiff(samples("CMYK").astype(np.uint16) * 257, bits=16, photometric=5, planar=True), "RGB", 1),
    }  # fmt: skip
    signed = np.frombuffer(page().convert("LAB").tobytes(), np.uint8).reshape(*rgb.shape)
    lab = signed ^ np.array([0, 128, 128], np.uint8)
    found |= {
        "Lab": (odd.tiff(signed, photometric=8), "RGB", 9),
        "Lab 16": (odd.tiff(signed.astype(np.uint16) << 8, bits=16, photometric=8), "RGB", 9),
        "Lab with alpha": (odd.tiff(np.concatenate([signed, full], 2), photometric=8, tags={338: (3, [0])}), "RGB", 9),
        "ICC Lab": (odd.tiff(lab, photometric=9), "RGB", 9),
    }
    palette = page().quantize(8)
    table = np.array(palette.getpalette("RGB")).reshape(-1, 3)
    wide = np.zeros((65536, 3), np.uint16)
    wide[: len(table)] = table * 257
    indexes = np.asarray(palette)[..., None].astype(np.uint16)
    return found | {"palette 16": (odd.tiff(indexes, bits=16, photometric=3, tags={320: (3, wide.T.ravel().tolist())}), "RGB", 0)}


@pytest.mark.parametrize("name", tiffs())
def test_a_tiff_of_any_layout_shows_its_page(pool, name):
    data, mode, within = tiffs()[name]
    assert furthest(shown(pool, data), page().convert(mode)) <= within


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "zstd", "lzma", "tiff_adobe_deflate"])
def test_deep_tiffs_are_read_however_they_are_compressed(pool, compression):
    values = np.asarray(page().convert("L")).astype(np.float32) / 255
    data = encoded(Image.fromarray(values), "TIFF", compression=compression)
    assert furthest(shown(pool, data), page().convert("L")) == 0


def test_an_opacity_that_was_multiplied_in_is_taken_out(pool):
    half = np.full((odd.HEIGHT, odd.WIDTH, 1), 32768, np.uint16)
    values = np.concatenate([samples().astype(np.uint16) * 128, half], 2)
    image = shown(pool, odd.tiff(values, bits=16, tags={338: (3, [1])}))
    ground = Image.new("RGB", image.size, "white")
    assert furthest(image, Image.blend(ground, page(), 0.5)) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_as_its_tag_says(pool, orientation):
    data = odd.tiff(samples().astype(np.uint16) * 257, bits=16, tags={274: (3, [orientation])})
    plain = odd.opened(odd.tiff(samples(), tags={274: (3, [orientation])}))
    assert furthest(shown(pool, data), plain) == 0


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({259: (3, [34712])}, "compressed as JPEG 2000"),
        ({259: (3, [50001])}, "compressed as WebP"),
        ({339: (3, [6, 6, 6])}, "complex"),
        ({258: (3, [8, 8, 16])}, "differ in depth"),
        ({262: (3, [32845])}, "photometric interpretation 32845"),
        ({258: (3, [12, 12, 12]), 259: (3, [7])}, "JPEG with 12 bits"),
    ],
)
def test_a_tiff_that_cannot_be_read_here_is_refused_by_its_variant(pool, tags, said):
    outcome = refused(pool, odd.tiff(samples(), tags=tags))
    assert outcome.code is ItemCode.UNSUPPORTED_FORMAT
    assert said in outcome.detail


# PSD


@cache
def psds() -> dict[str, tuple[bytes, str, int]]:
    rgb, grey = np.moveaxis(samples(), 2, 0), np.moveaxis(samples("L"), 2, 0)
    selection = 255 - grey
    cmyk = 255 - np.moveaxis(samples("CMYK"), 2, 0)
    signed = np.frombuffer(page().convert("LAB").tobytes(), np.uint8).reshape(*samples().shape)
    lab = np.moveaxis(signed ^ np.array([0, 128, 128], np.uint8), 2, 0)
    return {
        "16 bits": (odd.psd(rgb.astype(np.uint16) * 257, bits=16), "RGB", 0),
        "16 bits, packed": (odd.psd(rgb.astype(np.uint16) * 257, bits=16, compression=1), "RGB", 0),
        "zip": (odd.psd(rgb, compression=2), "RGB", 0),
        "two more channels": (odd.psd(np.concatenate([rgb, selection, grey]), compression=1), "RGB", 0),
        "a saved selection": (odd.psd(np.concatenate([rgb, selection]), layers=1), "RGB", 0),
        "a saved selection and no layers": (odd.psd(np.concatenate([rgb, selection])), "RGB", 0),
        "grey with a saved selection": (odd.psd(np.concatenate([grey, selection]), mode=1), "L", 0),
        "grey 16": (odd.psd(grey.astype(np.uint16) * 257, mode=1, bits=16), "L", 0),
        "opacity": (odd.psd(np.concatenate([rgb, np.full_like(grey, 255)]), layers=-1), "RGB", 0),
        "CMYK": (odd.psd(cmyk, mode=4), "RGB", 1),
        "CMYK 16 with a fifth channel": (odd.psd(np.concatenate([cmyk, grey]).astype(np.uint16) * 257, mode=4, bits=16), "RGB", 1),
        "Lab": (odd.psd(lab, mode=9), "RGB", 9),
        "Lab 16": (odd.psd(lab.astype(np.uint16) * 256, mode=9, bits=16), "RGB", 9),
        "duotone": (odd.psd(grey, mode=8), "L", 0),
    }  # fmt: skip


@pytest.mark.parametrize("name", psds())
def test_a_psd_of_any_kind_shows_its_page(pool, name):
    data, mode, within = psds()[name]
    assert furthest(shown(pool, data), page().convert(mode)) <= within


def test_the_first_channel_behind_the_colours_is_opacity_where_the_layers_say_so(pool):
    alpha = np.zeros((1, odd.HEIGHT, odd.WIDTH), np.uint8)
    alpha[:, :, :30] = 255
    image = shown(pool, odd.psd(np.concatenate([np.moveaxis(samples(), 2, 0), alpha]), layers=-1))
    assert image.getpixel((10, 10)) == (200, 30, 30)
    assert image.getpixel((55, 10)) == (255, 255, 255)


def test_the_white_in_half_transparent_pixels_of_a_psd_is_taken_out(pool):
    """Photoshop has blended them with white. What is light and transparent is laid on black, where the white would show."""
    half = np.full((1, odd.HEIGHT, odd.WIDTH), 128, np.uint8)
    light = np.moveaxis(np.full_like(samples(), (190, 235, 245)), 2, 0)
    blended = (255 - (255 - light.astype(np.float32)) * 128 / 255).round().astype(np.uint8)
    half[:, :, :20] = blended[:, :, :20] = 0
    image = shown(pool, odd.psd(np.concatenate([blended, half]), layers=-1))
    ground = image.getpixel((5, 5))[0]
    expected = [round((value * 128 + ground * 127) / 255) for value in (190, 235, 245)]
    assert np.abs(np.array(image.getpixel((40, 10))) - expected).max() <= 1


def test_an_xbm_may_begin_with_comments(pool):
    ink = (samples("L")[..., 0] < 128).astype(np.uint8)
    data = b"/* Created with The GIMP */\n/* twice */\n" + encoded(Image.fromarray(ink.astype(bool)), "XBM")
    assert furthest(shown(pool, data), Image.fromarray(ink == 0)) == 0


@pytest.mark.parametrize("kind", ["PSD", "XBM"])
def test_a_set_bit_is_ink(pool, kind):
    ink = (samples("L")[..., 0] < 128).astype(np.uint8)
    data = odd.psd(ink[None], mode=0, bits=1) if kind == "PSD" else encoded(Image.fromarray(ink.astype(bool)), "XBM")
    assert furthest(shown(pool, data), Image.fromarray(ink == 0)) == 0


def test_a_multichannel_psd_is_refused_by_name(pool):
    outcome = refused(pool, odd.psd(np.moveaxis(samples(), 2, 0), mode=7))
    assert (outcome.code, "multichannel" in outcome.detail) == (ItemCode.UNSUPPORTED_FORMAT, True)


# BMP


def _rows_upward(values: np.ndarray) -> bytes:
    return b"".join(row.tobytes().ljust(-(-len(row.tobytes()) // 4) * 4, b"\0") for row in values[::-1])


@cache
def bmps() -> dict[str, tuple[bytes, int]]:
    rgb = samples().astype(np.uint32)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    fours = ((red >> 4) << 8 | (green >> 4) << 4 | blue >> 4).astype("<u2")
    tens = ((red * 1023 // 255) << 20 | (green * 1023 // 255) << 10 | blue * 1023 // 255).astype("<u4")
    clear = np.concatenate([samples()[..., ::-1], np.zeros_like(samples("L"))], axis=2)
    usual = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    return {
        "4-4-4": (odd.bmp(_rows_upward(fours), bits=16, compression=3, masks=(0xF00, 0xF0, 0xF)), 15),
        "10-10-10": (odd.bmp(_rows_upward(tens), bits=32, compression=3, masks=(0x3FF00000, 0xFFC00, 0x3FF)), 1),
        "an opacity of 0, V4": (odd.bmp(_rows_upward(clear), bits=32, compression=3, masks=usual, header=108), 0),
        "an opacity of 0, V5": (odd.bmp(_rows_upward(clear), bits=32, compression=3, masks=usual, header=124), 0),
        "a fourth byte of 0": (odd.bmp(_rows_upward(clear), bits=32), 0),
        "runs with blank rows": (_with_blank_rows(jumps=False), 0),
        "runs with jumps over rows": (_with_blank_rows(jumps=True), 0),
    }


def _with_blank_rows(*, jumps: bool) -> bytes:
    """The page in runs of eight bits, whose white rows are left out: white is the first colour."""
    image = page().quantize(8)
    table = np.array(image.getpalette("RGB")).reshape(-1, 3)
    white = int((table == 255).all(axis=1).argmax())
    indexes = np.asarray(image)
    indexes = np.where(indexes == white, 0, np.where(indexes == 0, white, indexes))
    table[[0, white]] = table[[white, 0]]
    body, left_out = b"", 0
    for row in indexes[::-1]:
        if not row.any():
            body += b"" if jumps else b"\0\0"
            left_out += 1
            continue
        if jumps and left_out:
            body += bytes((0, 2, 0, left_out))
        left_out = 0
        body += b"".join(bytes((1, value)) for value in row) + b"\0\0"
    palette = b"".join(bytes((*map(int, colour[::-1]), 0)) for colour in table)
    return odd.bmp(body + b"\0\1", bits=8, compression=1, palette=palette)


@pytest.mark.parametrize("name", bmps())
def test_a_bmp_of_any_kind_shows_its_page(pool, name):
    data, within = bmps()[name]
    assert furthest(shown(pool, data), page()) <= within


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_bmp_with_a_palette_of_any_depth_shows_its_page(pool, bits):
    image = page().quantize(1 << bits)
    palette = b"".join(
        bytes((*colour[::-1], 0)) for colour in np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3).tolist()
    )
    rows = [odd.packed(row[None], bits) for row in np.asarray(image)[::-1]]
    body = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)
    assert furthest(shown(pool, odd.bmp(body, bits=bits, palette=palette)), image) == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_bmp_whose_palette_is_left_out_of_the_place_of_its_pixels_shows_its_page(pool, bits):
    levels = (samples("L")[..., 0].astype(np.uint16) * ((1 << bits) - 1) // 255).astype(np.uint8)
    greys = [round(level * 255 / ((1 << bits) - 1)) for level in range(1 << bits)]
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in greys)
    packed = np.frombuffer(odd.packed(levels[..., None], bits), np.uint8).reshape(odd.HEIGHT, -1)
    body = b"".join(row.tobytes().ljust(-(-len(row) // 4) * 4, b"\0") for row in packed[::-1])
    data = odd.bmp(body, bits=bits, palette=palette)
    short = data[:10] + struct.pack("<I", 54) + data[14:]
    assert furthest(shown(pool, short), Image.fromarray(np.array(greys, np.uint8)[levels])) == 0


@pytest.mark.parametrize("name", ["pixels", "runs"])
def test_a_bmp_that_ends_early_shows_the_rows_it_has(pool, name):
    kinds = {"pixels": odd.bmp(_rows_upward(samples()[..., ::-1]), bits=24), "runs": _with_blank_rows(jumps=False)}
    whole = kinds[name]
    cut = prepared(pool, whole[: len(whole) - (len(whole) - 54) // 4])
    assert cut.note.startswith("rows_missing")
    missing = int(re.search(r"(\d+) of", cut.note)[1])
    assert 0 < missing < odd.HEIGHT / 2
    box = (0, missing, odd.WIDTH, odd.HEIGHT)
    assert furthest(odd.opened(cut.data).convert("RGB").crop(box), page().crop(box)) == 0
    outcome = refused(pool, whole[: 54 + (len(whole) - 54) // 6])
    assert outcome.code is ItemCode.IMAGE_CORRUPT


def test_a_bmp_around_a_jpeg_is_refused_by_name(pool):
    outcome = refused(pool, odd.bmp(bytes(100), bits=32, compression=4))
    assert (outcome.code, "holds a JPEG" in outcome.detail) == (ItemCode.UNSUPPORTED_FORMAT, True)


# TGA, PCX and DDS


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_tga_needs_no_footer(pool, mode):
    image = page().quantize(16) if mode == "P" else page().convert(mode)
    outcome = prepared(pool, odd.tga(image))
    assert outcome.source_format == "TGA"
    assert furthest(odd.opened(outcome.data), image.convert("RGB")) == 0


def test_an_opacity_of_0_everywhere_hides_no_tga(pool):
    image = page()
    image.putalpha(0)
    assert furthest(shown(pool, encoded(image, "TGA")), page()) == 0


@cache
def pcxs() -> dict[str, tuple[bytes, Image.Image]]:
    rgb = np.moveaxis(samples(), 2, 1)
    found = {"24 bits, version 3": (odd.pcx(rgb, bits=8, version=3), page())}
    found["32 bits"] = (odd.pcx(np.concatenate([rgb, np.full_like(rgb[:, :1], 255)], 1), bits=8), page())
    for bits, planes in ((1, 2), (1, 3), (1, 4), (2, 1), (4, 1), (2, 2)):
        image = page().quantize(1 << bits * planes)
        values = np.asarray(image)
        split = np.stack([(values >> bits * plane) & ((1 << bits) - 1) for plane in range(planes)], axis=1)
        found[f"{bits} bits, {planes} planes"] = (odd.pcx(split, bits=bits, palette=bytes(image.getpalette("RGB"))), image)
    image = page().quantize(256)
    tail = b"\x0c" + bytes(image.getpalette("RGB")).ljust(768, b"\0")
    return found | {"256 colours": (odd.pcx(np.asarray(image)[:, None], bits=8, tail=tail), image)}


@pytest.mark.parametrize("name", pcxs())
def test_a_pcx_of_any_planes_shows_its_page(pool, name):
    data, image = pcxs()[name]
    assert furthest(shown(pool, data), image.convert("RGB")) == 0


@cache
def ddss() -> dict[str, tuple[bytes, int]]:
    rgb = samples()
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], 2)
    wide = rgb.astype(np.uint32)
    five = (wide[..., 0] >> 3) << 11 | (wide[..., 1] >> 2) << 5 | wide[..., 2] >> 3
    ten = (wide[..., 0] * 4) | (wide[..., 1] * 4) << 10 | (wide[..., 2] * 4) << 20 | np.uint32(3 << 30)
    blocks = encoded(page().convert("RGBA"), "DDS", pixel_format="DXT1")[128:]
    return {
        "B8G8R8A8": (odd.dds(rgba[..., [2, 1, 0, 3]].tobytes(), dxgi=87), 0),
        "B8G8R8X8": (odd.dds(rgba[..., [2, 1, 0, 3]].tobytes(), dxgi=88), 0),
        "B5G6R5": (odd.dds(five.astype("<u2").tobytes(), dxgi=85), 8),
        "R10G10B10A2": (odd.dds(ten.astype("<u4").tobytes(), dxgi=24), 3),
        "16 bits": (odd.dds((rgba.astype("<u2") * 257).tobytes(), code=struct.pack("<I", 36)), 0),
        "half floats": (odd.dds((rgba / 255).astype("<f2").tobytes(), code=struct.pack("<I", 113)), 0),
        "floats": (odd.dds((rgba / 255).astype("<f4").tobytes(), dxgi=2), 0),
        "5-6-5 by masks": (odd.dds(five.astype("<u2").tobytes(), flags=0x40, bits=16, masks=(0xF800, 0x7E0, 0x1F)), 8),
        "BC1, sRGB": (odd.dds(blocks, dxgi=72), 12),
    }


@pytest.mark.parametrize("name", ddss())
def test_a_dds_of_many_formats_shows_its_page(pool, name):
    data, within = ddss()[name]
    assert furthest(shown(pool, data), page()) <= within


def test_the_luminance_of_a_dds_is_read_whatever_its_mask_says(pool):
    data = odd.dds(samples("L").tobytes(), flags=0x20000, bits=8, masks=(0xFF000000,) * 3)
    assert furthest(shown(pool, data), page().convert("L")) == 0


def test_a_dds_of_a_format_nobody_reads_is_refused_by_name(pool):
    outcome = refused(pool, odd.dds(bytes(9000), code=b"ASTC"))
    assert (outcome.code, "DDS ASTC" in outcome.detail) == (ItemCode.UNSUPPORTED_FORMAT, True)


# AVIF and HEIF


def test_an_orientation_in_xmp_turns_no_picture(pool):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    assert shown(pool, encoded(photo(), "AVIF", xmp=xmp)).size == photo().size
    data = encoded(photo(), "JPEG", xmp=xmp)
    assert prepared(pool, data).data == data


def test_a_heif_sequence_without_a_still_picture_is_refused_by_name(pool):
    still = converted()["HEIF sequence"]
    film = still.replace(b"meta", b"free", 1) + struct.pack(">I4s", 8, b"moov")
    outcome = refused(pool, film)
    assert (outcome.code, "film" in outcome.detail) == (ItemCode.UNSUPPORTED_FORMAT, True)
    assert io.BytesIO(prepared(pool, still).data).read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("four", [False, True])
def test_long_series_of_runs_in_a_bmp_show_each_run(pool, four):
    """Forty runs a row. A run of four bits a pixel alternates between two colours and begins anew with the first."""
    grey = b"".join(bytes((level * 17, level * 17, level * 17, 0)) for level in range(16))
    row, shown = b"", []
    for number in range(40):
        length, first, second = (1, 3)[number % 2], number % 16, (number * 7 + 3) % 16 if four else number % 16
        row += bytes((length, first << 4 | second if four else first))
        shown += [first, second, first][:length]
    data = odd.bmp((row + b"\0\0") * 40 + b"\0\1", bits=4 if four else 8, compression=2 if four else 1, palette=grey)
    seen = np.asarray(odd.opened(_prepared_png(pool, data)).convert("L"))
    assert (seen == np.array(shown) * 17).all()


def _prepared_png(pool: DecoderPool, data: bytes) -> bytes:
    [outcome] = pool([data])
    assert isinstance(outcome, Prepared), outcome
    return outcome.data
