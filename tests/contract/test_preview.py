"""What every Preview promises: the one in this process, and the pool of child processes."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from pipeline.decode.pool import DecoderPool
from pipeline.ports import Preview
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import picture_files
from tests.fakes.picture_files import encoded, exif, photo
from tests.fakes.reencode import fake_preview


@pytest.fixture(scope="module", params=["in process", "pool"])
def preview(request: pytest.FixtureRequest) -> Iterator[Preview]:
    if request.param == "in process":
        yield fake_preview
        return
    with DecoderPool(1) as pool:
        yield pool.preview


def shown(preview: Preview, data: bytes, width: int) -> tuple[Prepared, tuple[int, int]]:
    outcome = preview(data, width=width)
    assert isinstance(outcome, Prepared), outcome
    assert outcome.mime == "image/jpeg"
    with Image.open(io.BytesIO(outcome.data)) as image:
        image.load()
        assert image.format == "JPEG"
        assert image.getexif().get(0x0112, 1) == 1
        return outcome, image.size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "HEIC"])
def test_a_preview_is_as_wide_as_asked_and_tells_the_size_of_the_original(preview, kind):
    outcome, size = shown(preview, picture_files.native()[kind], 64)
    scale = 64 / picture_files.WIDTH
    assert size == (64, round(picture_files.HEIGHT * scale)) if scale < 1 else size[0] == picture_files.WIDTH
    assert (outcome.width, outcome.height) == (picture_files.WIDTH, picture_files.HEIGHT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "CMYK"])
def test_a_large_tiff_of_any_kind_is_shown_smaller(preview, mode):
    outcome, size = shown(preview, encoded(Image.new(mode, (400, 200)), "TIFF"), 100)
    assert size == (100, 50)
    assert (outcome.width, outcome.height, outcome.source_format) == (400, 200, "TIFF")


def test_a_small_picture_is_not_made_larger(preview):
    _, size = shown(preview, encoded(Image.new("RGB", (40, 30)), "PNG"), 1024)
    assert size == (40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_whatever_its_tag_says(preview, orientation):
    picture = photo().resize((320, 160))
    outcome, size = shown(preview, encoded(picture, "JPEG", exif=exif(orientation)), 80)
    on_its_side = orientation >= 5
    assert (outcome.width, outcome.height) == ((160, 320) if on_its_side else (320, 160))
    assert size == ((80, 160) if on_its_side else (80, 40))


def test_a_photo_that_is_decoded_at_a_part_of_its_size_is_as_wide_as_asked(preview):
    _, size = shown(preview, encoded(photo().resize((1001, 777)), "JPEG"), 100)
    assert size == (100, 78)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", ItemCode.IMAGE_EMPTY), (picture_files.native()["PNG"][:60], ItemCode.IMAGE_CORRUPT)],
    ids=["empty", "cut"],
)
def test_what_is_no_picture_is_refused_with_its_code(preview, data, code):
    outcome = preview(data, width=64)
    assert isinstance(outcome, Refused)
    assert outcome.code == code


def test_a_pool_whose_idle_children_were_ended_starts_another():
    with DecoderPool(1) as pool:
        before = shown(pool.preview, picture_files.native()["PNG"], 64)
        pool.end_idle()
        assert all(seat.child is None for seat in pool._idle)
        assert shown(pool.preview, picture_files.native()["PNG"], 64) == before
