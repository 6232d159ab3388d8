"""Image sequences in HEIF and AVIF files: the first frame arrives upright with a note, or the file is refused by name."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.decode.heif import sequence_frames
from pipeline.decode.pool import DecoderPool
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes.picture_files import with_brand

FILES = Path(__file__).with_name("sequences")
NOTE = "several_pages: 3 frames, the first was read"


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1) as pool:
        yield pool


def frame(number: int) -> Image.Image:
    image = Image.new("RGB", (96, 64), (250, 240, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 4, 40, 30), fill=(200, 30, 30))
    draw.rectangle((50 + 4 * number, 36, 80 + 4 * number, 60), fill=(30, 30, 200))
    return image


def read(name: str) -> bytes:
    return (FILES / name).read_bytes()


def outcome_of(pool: DecoderPool, data: bytes) -> Prepared | Refused:
    [outcome] = pool([data])
    return outcome


def far_off(one: Image.Image, other: Image.Image) -> float:
    """The share of samples that differ by more than 40 of 255, as only samples at the edges of coloured areas may."""
    return float((np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other, int)) > 40).mean())


@pytest.mark.parametrize(
    ("name", "turn"), [("still-and-frames.heic", None), ("ffmpeg.avif", None), ("turned.avif", Image.Transpose.ROTATE_90)]
)
def test_the_first_frame_of_a_sequence_arrives_upright_with_a_note(pool, name, turn):
    outcome = outcome_of(pool, read(name))
    assert isinstance(outcome, Prepared), outcome
    assert outcome.note == NOTE
    wanted = frame(0) if turn is None else frame(0).transpose(turn)
    with Image.open(io.BytesIO(outcome.data)) as image:
        assert image.size == wanted.size == (outcome.width, outcome.height)
        assert far_off(image, wanted) < 0.02
        if turn is None:
            assert far_off(image, frame(1)) > 0.02


@pytest.mark.parametrize(
    ("name", "brand", "as_it_came"),
    [
        ("still-and-frames.heic", b"msf1", False),
        ("still-and-frames.heic", b"heic", True),
        ("still-and-frames.heic", b"mif1", True),
        ("ffmpeg.avif", b"avif", False),
        ("ffmpeg.avif", b"mif1", False),
        ("ffmpeg.avif", b"msf1", False),
    ],
)
def test_frames_beside_a_still_picture_are_noted_under_every_brand(pool, name, brand, as_it_came):
    data = with_brand(read(name), brand)
    outcome = outcome_of(pool, data)
    assert isinstance(outcome, Prepared), outcome
    assert (outcome.note, outcome.data == data, outcome.width, outcome.height) == (NOTE, as_it_came, 96, 64)


@pytest.mark.parametrize("brand", [b"hevc", b"msf1", b"heic", b"mif1"])
def test_a_heif_sequence_of_frames_alone_is_refused_by_name(pool, brand):
    outcome = outcome_of(pool, with_brand(read("frames-only.heic"), brand))
    assert isinstance(outcome, Refused), outcome
    assert (outcome.code, "HEIF sequence is a film" in outcome.detail) == (ItemCode.UNSUPPORTED_FORMAT, True)


def test_an_avif_sequence_of_frames_alone_is_refused_by_name(pool):
    outcome = outcome_of(pool, read("ffmpeg.avif").replace(b"meta", b"free", 1))
    assert isinstance(outcome, Refused), outcome
    assert (outcome.code, "AVIF sequence is a film" in outcome.detail) == (ItemCode.UNSUPPORTED_FORMAT, True)


def test_the_count_of_frames_survives_every_cut_and_odd_box_sizes():
    data = read("frames-only.heic")
    assert {sequence_frames(data[:end]) for end in range(len(data))} <= {0, 3}
    start = data.index(b"moov") - 4
    size = int.from_bytes(data[start : start + 4])
    movie = data[start + 8 : start + size]
    assert sequence_frames(struct.pack(">I4sQ", 1, b"moov", 16 + len(movie)) + movie) == 3
    assert sequence_frames(struct.pack(">I4s", 0, b"moov") + movie) == 3
    assert sequence_frames(struct.pack(">I4sQ", 1, b"free", 3)) == 0


def test_a_track_of_opacity_or_sound_does_not_count():
    data = read("frames-only.heic")
    assert [sequence_frames(data.replace(b"pict", handler)) for handler in (b"vide", b"auxv", b"soun")] == [3, 0, 0]
