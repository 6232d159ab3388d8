"""Pictures of scripts that the OCR has no letters for are noted, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines.ocr.engine import OcrEngine
from pipeline.engines.ocr.reader import _Found, _is_doubtful
from pipeline.types import Call, Form, Picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ocr")]

PICTURES = Path(__file__).with_name("scripts")
SCRIPTS = sorted(path.stem for path in PICTURES.glob("*.png"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = OcrEngine(tmp_path_factory.mktemp("ocr"), grace=1.0)
    yield engine
    engine.close()


def call(data: bytes, *, json_mode: bool = False) -> Call:
    pictures = (Picture(number=3, mime="image/png", data=data),)
    form = Form.JSON if json_mode else Form.TEXT
    return Call(prompt="Read it.", form=form, json_mode=json_mode, pictures=pictures, timeout=120.0)


def quad(length, height=10):
    return np.array([[0, 0], [length * height, 0], [length * height, height], [0, height]], np.float64)


#: As they were read, with their confidence and their length in heights: pages in print of other scripts, and receipts.
DOUBTFUL = {
    "Cyrillic": [("C\u00ebt N 118 oT 3 ap\u03c4a", 0.78, 10.2), (" \u03ba  540 ", 0.847, 11.0)],
    "Cyrillic, sure of the rest": [("- 4711  12 ", 0.999, 14.3)],
    "Greek": [("T\u03b9\u03bc\u03bf\u03bb\u03b3\u03b9\u03bf \u03b1\u03c1\u03b9\u03bc 4711", 0.93, 9.0)],
    "Hebrew": [("A410 1u atul", 0.751, 7.4), ("UACICU UOGL IILD", 0.759, 9.3)],
    "Korean, read as nothing": [("", 0.0, 16.4)],
    "Georgian words beside prices": [("Bogogo", 0.68, 3.3), ("12.50", 0.999, 2.4), ("", 0.0, 3.1), ("3.90", 0.999, 2.1)],
    "a short Ethiopic word": [("P\u00d3OAE", 0.53, 2.9)],
    "Arabic": [("o5 m ", 0.531, 6.7), ("477.", 0.682, 5.1)],
}
SURE = {
    "a receipt": [("41 Quayside Row, Port Ellery XE3 8QT", 0.986, 14.7), ("FOOD HALL", 0.991, 6.9), ("0.00", 0.879, 2.1)],
    "a formula": [("E = mc\u00b2 + \u03b1\u00b7\u03b2, \u03c3 = 3.2 \u00b5m", 0.955, 12.3)],
    "Chinese": [("\u53d1\u7968\u53f7\u7801\uff1a4711", 0.97, 9.5)],
    "one line of many": [("o5 m ", 0.5, 6.0), ("The quick brown fox jumps over 13 lazy dogs.", 0.98, 17.0)],
    "prices alone": [("12.50", 0.999, 2.4), ("3.90", 0.95, 2.1)],
    "a stain on a page": [("The quick brown fox jumps over 13 lazy dogs.", 0.98, 17.0), ("", 0.0, 4.0)],
    "a short word": [("Caf\u00e9", 0.93, 2.4)],
    "nothing": [],
}


@pytest.mark.parametrize("name", [*DOUBTFUL, *SURE])
def test_a_script_that_the_models_have_no_letters_for_is_doubted(name):
    lines = {**DOUBTFUL, **SURE}[name]
    found = [_Found(text=text, confidence=confidence, corners=quad(length)) for text, confidence, length in lines]
    assert _is_doubtful(found) == (name in DOUBTFUL)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_picture_of_such_a_script_is_noted(engine, script):
    notes = engine.ask(call((PICTURES / f"{script}.png").read_bytes())).notes
    assert list(notes) == [3]
    assert notes[3].startswith("script_not_read: ")


def test_a_picture_of_latin_script_is_not_noted(engine):
    assert engine.ask(call(Path("examples/01-till-receipt.png").read_bytes())).notes == {}


def test_a_line_in_which_nothing_is_read_adds_no_text(engine):
    assert json.loads(engine.ask(call((PICTURES / "korean.png").read_bytes(), json_mode=True)).text)[0]["lines"] == []
