"""What every TextReader promises: the fake, and the one that asks the OCR's server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline.engines.ocr.text_reader import OcrTextReader
from pipeline.errors import Permanent
from pipeline.ports import ModelFault, TextReader
from tests.fakes.text_reader import FakeTextReader


def drawn(text: str) -> bytes:
    picture = Image.new("RGB", (400, 120), "white")
    ImageDraw.Draw(picture).multiline_text((10, 10), text, "black", ImageFont.load_default(32))
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module", params=["fake", "OCR"])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TextReader, Callable]]:
    """A reader, and a function that makes a picture of a text for it."""
    if request.param == "fake":
        yield FakeTextReader(), str.encode
        return
    real = OcrTextReader(tmp_path_factory.mktemp("data") / "ocr")
    yield real, drawn
    real.close()


def test_the_lines_of_a_picture_are_read_with_their_places(reader):
    made, picture = reader
    reading = made.read(picture("TOTAL 12.50\nTHANKS"), timeout=60)
    assert {line.text.replace(" ", "") for line in reading.lines} == {"TOTAL12.50", "THANKS"}
    width, height = reading.size
    for line in reading.lines:
        assert 0.5 < line.confidence <= 1
        assert all(0 <= x <= width and 0 <= y <= height for x, y in line.box)
    assert not reading.doubtful


def test_bytes_that_are_no_picture_are_a_fault_of_this_picture_alone(reader):
    made, picture = reader
    with pytest.raises(ModelFault):
        made.read(b"\xff\xfe\x00", timeout=60)
    assert made.read(picture("AGAIN"), timeout=60).lines[0].text == "AGAIN"


def test_a_folder_that_others_may_enter_is_a_fault_for_good(tmp_path):
    (tmp_path / "ocr").mkdir()
    (tmp_path / "ocr").chmod(0o755)  # mkdir heeds the umask, which another test may have set
    with pytest.raises(Permanent):
        OcrTextReader(tmp_path / "ocr").read(b"", timeout=1)
