"""What a person sees is what the model sees: turned pictures, rare JPEGs, faint depths, and grounds for what is clear."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFont, JpegImagePlugin

from pipeline.decode.pool import DecoderPool
from pipeline.types import ItemCode, Prepared, Refused
from tests.component.pipeline.decode.test_decode import upright
from tests.fakes import odd_picture_files as odd
from tests.fakes.odd_picture_files import page, samples
from tests.fakes.picture_files import encoded, exif, photo

#: Made by cjpeg of libjpeg-turbo, which writes what Pillow does not: the page with arithmetic codes, at quality 95
#: without subsampling.
ARITHMETIC_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/yQARCAAoAFADAREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwDS4FiItEIC9ssbo6ohoY5HAUkF7pyXhRr4FdJpMZtZb9WmJOospwZrxBamFS0jMMfFuO8ntX1oWUexIIwfJtlYSKyUCxTE31LVgOuNRznnEkhypXtvu8GmmO7Cj4heDcUkJGuVtfygXL+llhf/ADnmPIw5mPCfnKzQjp6vzkP/AMAyXfceRLDQDcxWmMAua5bnEpiV+gpmr5LGddTjBnzCwfvTgsD7ca9ELh1ahUqMbf0EYc4eCHT3z3BG9sQuBUElXoAzBe/qcoChmWwXrFcA4oLqiD0OY+9CB75wXEqXoHt8znAkcMbcyZ6BOt+g+XEzixDRGp/0BPLJUIcRsB7N3IevJepKCC52vF9QWIvi1KlvF79MBkSr6JgS+TPpEXFr4KqK0cdianGhCv22LYM6FHEFvGwp1ynEic+SDhFbnJfg+xn5p/5mcevpSObFu/heLxNKfguhNf8A0Odnn7EbKaC4foSzxiqEbd5OeTZmslOw7HsF0G3nMgImphPQDw6t5vdMrYocwTwxrpCnO2ojqBGSbfH3Dqbek3XXPFxHZB71j/m20VkyKsbfAQR03WrDH8AydOEFAKUlUkufIkGjATPx8QcfoI4xsQ+bOaUlsyB77FNhvLGptc/BejugaxFy5x0wS0n+mQ14RHU1zfBEgMLr/F1kPKlhjSsU4fb3O0VHWPT2JUg2S40sXTIm0T79+wHlPBq+Vu1Yz6LWAy4+/wDA/H7WAFN1ryUXEvlWM4ieMBUb9f79Cy4mT5vu02K48dCMAiKwJcknwsARN8KBlu+P54rcSlo0FYh8rDwrful76o/7HeVPQlPf6lhch8i/sNnZJsSTGRlVmScBF90bMOpyaRBn0bUnrPSfvguRllvMYBOU0Xt8Va/L1e0m/ABsRSFdHrzsvUh5qD8RTzVy6LAoeGDAg3OFOXzcvkGOwyWLxJ6v51fvnJFWLgblc2uGN8kTYDTeOmXQw4YNVw83iUqfLFs0FhkVIGS7tV8PFtozTlhdWPM32fB88VUEQf1E2/eqeoXAeqMiMy1/xJhPRH0wAvm/5o3iBHMuB8JCkWgClcAWd5B6MZzk9t7pPYDlq9COZg30MlZVxIgegP34HA0xHtbV63MmK8hLhbeBP7DgGbiqc7Ku9Y5IEQZu4BcBQ8/R4+YcQyMPsz4ByCKjJ8RCzKmrxxwVbQItVr9Z/EuOGgQT7/Elm8Z2X3HGhNl0UuNvtoWYzVSsgtbHPntanVUfWP6NJO+iWAcBg0MRhs7874RJULtZCRHaD7jmVPXU0qfdpW5L00AWb9pp1yy+zWYLyOkKHaDli0roYe7nfPy+gfb9+WXxyXrRAhFJtg4bLExKhvPA08WTbUCtVboQaSNWz9F9SqNybVBHDsqFOJV6dnS7lkF+oJAqdbthR6zdoFOdnqbPd//Z"
)


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1) as pool:
        yield pool


def prepared(pool: DecoderPool, data: bytes) -> Prepared:
    [outcome] = pool([data])
    assert isinstance(outcome, Prepared), outcome
    return outcome


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one.convert("RGB")).astype(int) - np.asarray(other.convert("RGB")).astype(int)).mean())


def large() -> Image.Image:
    """Large enough to be a JPEG once it is turned, with fields at its corners and noise between."""
    noise = np.random.default_rng(1).integers(0, 255, (800, 1400, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1400, 800)).reduce(8).resize((1400, 800), Image.Resampling.BICUBIC)
    image.paste("red", (0, 0, 200, 200))
    return image


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_turned_photo_goes_upright(pool, kind, orientation, size):
    image = photo(160, 120) if size == "small" else large()
    data = encoded(image, kind, exif=exif(orientation), quality=95)
    outcome = prepared(pool, data)
    shown = odd.opened(outcome.data)
    assert shown.getexif().get(0x0112, 1) == 1
    assert shown.size == (outcome.width, outcome.height)
    assert mean_difference(shown, upright(image, orientation)) < 4
    assert (outcome.mime, shown.format) in {("image/jpeg", "JPEG"), ("image/png", "PNG")}
    if kind == "PNG":
        assert mean_difference(shown, upright(image, orientation)) == 0
    elif size == "large":
        assert shown.format == "JPEG"


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_turning_takes_no_colour_from_a_jpeg(pool, subsampling):
    data = encoded(large(), "JPEG", exif=exif(6), subsampling=subsampling)
    shown = odd.opened(prepared(pool, data).data)
    assert JpegImagePlugin.get_sampling(shown) == (2 if subsampling == 2 else 0)
    tables = shown.quantization
    assert max(tables[0]) <= 12, "quality 95"


def test_a_photo_of_many_pixels_keeps_half_of_its_colour_because_all_of_it_takes_a_third_longer(pool):
    image = Image.new("RGB", (2600, 1600), "red")
    image.paste("blue", (0, 0, 1300, 800))
    shown = odd.opened(prepared(pool, encoded(image, "JPEG", exif=exif(6), subsampling=0)).data)
    assert JpegImagePlugin.get_sampling(shown) == 1
    assert mean_difference(shown, upright(image, 6)) < 1


@pytest.mark.parametrize("damage", ["sound", "checksum"])
def test_a_deep_or_damaged_png_goes_upright_too(pool, damage):
    faint = np.arange(48 * 32, dtype=np.uint16).reshape(32, 48, 1)
    body = exif(6).tobytes().removeprefix(b"Exif\0\0")
    data = odd.png(faint, bits=16, colour=0, before=odd.png_chunk(b"eXIf", body))
    if damage == "checksum":
        data = data.replace(
            odd.png_chunk(b"eXIf", body), odd.png_chunk(b"eXIf", body) + odd.png_chunk(b"tEXt", b"a\0b", checksum=1)
        )
    shown = np.asarray(odd.opened(prepared(pool, data).data)).astype(int)
    assert shown.shape == (48, 32)
    assert (np.diff(shown, axis=0) >= 0).all(), "brighter from left to right, which is now from top to bottom"
    assert (np.diff(shown, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PSD"])
@pytest.mark.parametrize("sound", [True, False])
def test_the_profile_of_a_cmyk_picture_decides_its_colours_if_it_is_sound(pool, kind, sound):
    image = Image.new("CMYK", (64, 48), (255, 0, 0, 0))
    profile = odd.cmyk_profile() if sound else odd.cmyk_profile()[:150]
    if kind == "PSD":
        data = odd.psd(np.stack([255 - np.asarray(band) for band in image.split()]), mode=4, profile=profile)
    else:
        data = encoded(image, kind, icc_profile=profile)
    shown = odd.opened(prepared(pool, data).data).convert("RGB").getpixel((30, 20))
    cyan, yellow = (0, 255, 255), (255, 255, 0)
    assert max(abs(a - b) for a, b in zip(shown, yellow if sound else cyan, strict=True)) < 30


def test_a_lossless_photo_is_turned_without_loss(pool):
    data = encoded(photo(), "WEBP", lossless=True, exif=exif(6))
    shown = odd.opened(prepared(pool, data).data)
    assert shown.format == "PNG"
    assert mean_difference(shown, upright(photo(), 6)) == 0


def test_a_turned_photo_keeps_its_profile(pool):
    profile = bytes(16) + b"RGB " + bytes(108)
    shown = odd.opened(prepared(pool, encoded(large(), "JPEG", exif=exif(6), icc_profile=profile)).data)
    assert shown.info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_a_jpeg_of_inks_goes_as_rgb(pool, mode):
    data = encoded(page().convert("CMYK"), "JPEG", quality=95)
    if mode == "YCCK":
        cmyk = page().convert("CMYK")
        cyan, magenta, yellow, black = cmyk.split()
        inks = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
        data = encoded(Image.merge("CMYK", (*map(ImageChops.invert, inks.split()), black)), "JPEG", quality=95)
        adobe = data.index(b"Adobe")
        data = data[: adobe + 11] + b"\x02" + data[adobe + 12 :]
    shown = odd.opened(prepared(pool, data).data)
    assert shown.mode == "RGB"
    assert mean_difference(shown, page()) < 6


def test_a_jpeg_with_arithmetic_codes_goes_as_one_that_all_decode(pool):
    outcome = prepared(pool, ARITHMETIC_JPEG)
    shown = odd.opened(outcome.data)
    assert outcome.data != ARITHMETIC_JPEG
    assert mean_difference(shown, page()) < 3


def test_a_lossless_jpeg_goes_as_png(pool):
    outcome = prepared(pool, odd.lossless_jpeg(samples("L")[..., 0]))
    assert outcome.mime == "image/png"
    assert mean_difference(odd.opened(outcome.data), page().convert("L")) == 0


@pytest.mark.parametrize(
    ("marker", "bits", "said"), [(0xC0, 12, "12 bits"), (0xC5, 8, "hierarchical"), (0xCB, 8, "lossless"), (0xF7, 8, "JPEG-LS")]
)
def test_a_jpeg_of_a_variant_that_nobody_reads_is_refused_by_name(pool, marker, bits, said):
    data = encoded(photo(), "JPEG")
    frame = data.index(b"\xff\xc0")
    [outcome] = pool([data[:frame] + bytes((0xFF, marker)) + data[frame + 2 : frame + 4] + bytes([bits]) + data[frame + 5 :]])
    assert isinstance(outcome, Refused)
    assert outcome.code is ItemCode.UNSUPPORTED_FORMAT
    assert said in outcome.detail


@pytest.mark.parametrize(("colour", "mode"), [(0, "L"), (2, "RGB"), (4, "LA"), (6, "RGBA")])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_png_whose_16_bits_hold_fewer_is_as_bright_as_it_is_meant(pool, colour, mode, bits):
    most = (1 << bits) - 1
    values = np.rint(samples(mode).astype(np.float64) * most / 255).astype(np.uint16)
    if mode.endswith("A"):
        values[..., -1] = 65535
    shown = odd.opened(prepared(pool, odd.png(values, bits=16, colour=colour)).data)
    assert mean_difference(shown, page().convert(mode)) < 0.6


def test_a_png_that_uses_its_16_bits_goes_as_it_came(pool):
    for colour, mode in ((0, "L"), (2, "RGB"), (6, "RGBA")):
        data = odd.png(samples(mode).astype(np.uint16) * 257, bits=16, colour=colour)
        assert prepared(pool, data).data == data


# What is clear


def words(ink: str, size: tuple[int, int] = (300, 80)) -> Image.Image:
    """Text on a ground that is clear, with the colour below it that most programs write there."""
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).text((10, 20), "INVOICE 4711", fill=ink, font=ImageFont.load_default(36))
    return image


@pytest.mark.parametrize("ink", ["white", "black", "red", "#f0f0f0", "#202020"])
@pytest.mark.parametrize("kind", ["TIFF", "TGA", "ICO", "GIF", "JPEG2000"])
def test_text_on_a_clear_ground_contrasts_with_what_it_is_laid_on(pool, ink, kind):
    image = words(ink, (256, 80) if kind == "ICO" else (300, 80))
    data = encoded(image, kind, **({"sizes": [image.size]} if kind == "ICO" else {}))
    shown = odd.opened(prepared(pool, data).data)
    assert "A" not in shown.mode
    assert "transparency" not in shown.info
    grey = np.asarray(shown.convert("L")).astype(int)
    ground = grey[0, 0]
    assert (np.abs(grey - ground) > 80).mean() > 0.02, "letters are to be seen"


def test_black_and_white_text_on_a_clear_ground_are_both_seen(pool):
    image = words("white", (300, 160))
    image.alpha_composite(words("black"), (0, 80))
    shown = np.asarray(odd.opened(prepared(pool, encoded(image, "TIFF")).data).convert("L")).astype(int)
    for half in (shown[:80], shown[80:]):
        assert (np.abs(half - shown[0, 0]) > 80).mean() > 0.02


def test_a_page_with_clear_margins_is_laid_on_white(pool):
    image = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    image.paste(page().resize((360, 260)), (20, 20))
    shown = odd.opened(prepared(pool, encoded(image, "TIFF")).data)
    assert shown.getpixel((2, 2)) == (255, 255, 255)


# Blank pictures


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF"])
def test_a_blank_picture_says_so(pool, kind):
    assert prepared(pool, encoded(Image.new("RGB", (64, 48), "white"), kind)).note == "blank: every pixel has the same colour"
    assert prepared(pool, encoded(page(), kind)).note == ""


def test_a_thin_line_is_no_blank_page(pool):
    image = Image.new("RGB", (640, 480), "white")
    image.putpixel((300, 200), (200, 200, 200))
    assert prepared(pool, encoded(image, "JPEG", quality=100)).note == ""


def test_a_picture_of_which_nothing_is_seen_is_blank(pool):
    image = page()
    image.putalpha(0)
    assert prepared(pool, encoded(image, "PNG")).note.startswith("blank")
    assert io.BytesIO(prepared(pool, encoded(image, "PNG")).data).read(4) == b"\x89PNG"
