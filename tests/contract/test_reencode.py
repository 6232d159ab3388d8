"""What every Reencode promises: the one in this process, and the pool of child processes."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest
from PIL import Image

from pipeline.decode.pool import DecoderPool
from pipeline.ports import Reencode
from pipeline.types import INPUT_FAULTS, Prepared, Refused
from tests.fakes import picture_files
from tests.fakes.picture_files import encoded, exif, photo
from tests.fakes.reencode import fake_reencode
from tests.rows import at_once

MOST_BYTES = 14_000_000


@pytest.fixture(scope="module", params=["in process", "pool"])
def reencode(request: pytest.FixtureRequest) -> Iterator[Reencode]:
    if request.param == "in process":
        yield fake_reencode
        return
    with DecoderPool(1) as pool:
        yield pool.as_jpeg


def made(reencode: Reencode, data: bytes) -> Prepared:
    outcome = reencode(data)
    assert isinstance(outcome, Prepared), outcome
    assert outcome.mime == "image/jpeg"
    assert len(outcome.data) <= MOST_BYTES
    with Image.open(io.BytesIO(outcome.data)) as image:
        image.load()
        assert image.format == "JPEG"
        assert image.size == (outcome.width, outcome.height)
    return outcome


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "HEIC"])
def test_a_picture_of_a_format_that_decodes_becomes_a_jpeg_of_its_size(reencode, kind):
    outcome = made(reencode, picture_files.native()[kind])
    assert (outcome.width, outcome.height) == (picture_files.WIDTH, picture_files.HEIGHT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "CMYK"])
def test_a_picture_of_any_kind_becomes_a_jpeg(reencode, mode):
    outcome = made(reencode, encoded(Image.new(mode, (40, 30)), "TIFF"))
    assert (outcome.width, outcome.height, outcome.source_format) == (40, 30, "TIFF")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_upright_whatever_the_picture_s_tag_says_and_has_no_tag_that_turns_it(reencode, orientation):
    outcome = made(reencode, encoded(photo(), "PNG", exif=exif(orientation)))
    with Image.open(io.BytesIO(outcome.data)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        shown = image.convert("RGB")
    turned = orientation >= 5
    assert shown.size == ((picture_files.HEIGHT, picture_files.WIDTH) if turned else (picture_files.WIDTH, picture_files.HEIGHT))
    # The corner that is dark in the stored pixels stands where the tag puts it.
    corners = {(0, 0): {1, 5}, (-1, 0): {2, 6}, (-1, -1): {3, 7}, (0, -1): {4, 8}}
    darkest = min(corners, key=lambda at: sum(shown.getpixel((at[0] % shown.width, at[1] % shown.height))))
    assert orientation in corners[darkest]


def test_what_is_transparent_is_white_in_a_jpeg(reencode):
    picture = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (15, 10, 25, 20))
    outcome = made(reencode, encoded(picture, "PNG"))
    with Image.open(io.BytesIO(outcome.data)) as image:
        assert image.convert("L").crop((0, 0, 5, 30)).getextrema()[0] > 250
        assert image.convert("L").crop((17, 12, 23, 18)).getextrema()[1] < 20


def test_a_jpeg_that_comes_out_too_large_is_made_smaller_in_pixels(reencode):
    noise = Image.effect_noise((4800, 4000), 200).convert("RGB")
    outcome = made(reencode, encoded(noise, "PNG", compress_level=1))
    assert outcome.width < 4800
    assert outcome.height < 4000


@pytest.mark.parametrize("data", [b"", b"no picture", bytes(1000), random.Random(1).randbytes(5000)])
def test_what_is_no_picture_is_refused(reencode, data):
    assert_refused(reencode(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "HEIC"])
def test_a_picture_that_is_cut_short_is_refused(reencode, kind):
    whole = picture_files.native()[kind]
    assert_refused(reencode(whole[: len(whole) // 2]))


def assert_refused(outcome: Prepared | Refused) -> None:
    assert isinstance(outcome, Refused), outcome
    assert outcome.code in INPUT_FAULTS
    assert outcome.detail


def test_threads_that_ask_at_once_get_each_their_own_jpeg(reencode):
    def width(number: int) -> int:
        return made(reencode, encoded(Image.new("RGB", (number, 9)), "PNG")).width

    assert at_once(*(lambda number=number: width(number) for number in range(10, 18))) == list(range(10, 18))
