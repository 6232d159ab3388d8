"""What every engine promises: the one in memory, Gemini and OpenAI-compatible servers (against fakes), and OCR.

`make real-servers` asks it of real servers too: see tests/contract/conftest.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline.engines.gemini import GeminiEngine
from pipeline.engines.ocr.engine import OcrEngine
from pipeline.engines.openai import OpenAiEngine
from pipeline.ports import Engine
from pipeline.types import Call, Finish, Form, Picture, Prepared, Refused
from testbed.model_servers import ModelServer
from tests.fakes.engine import FakeEngine
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.openai import FakeOpenAI
from tests.rows import at_once


@dataclass
class Bench:
    """An engine, and pictures. If it `sees`, it can tell them apart: what it says of picture 12 holds "12"."""

    engine: Engine
    picture: Callable[[int], bytes]
    sees: bool = True  #: the tiny model of llama-server has random weights, so it answers nonsense, one record a call
    refused: Callable[[], list[str]] = list  #: what the model had to refuse: nothing, where the engine keeps to its contract


#: One worker of xdist starts the real servers.
REAL = [pytest.mark.real, pytest.mark.xdist_group("real servers")]


def engine_of(server: ModelServer, model: str = "") -> OpenAiEngine:
    return OpenAiEngine(base_url=server.base_url, api_key=server.api_key, model=model or server.model, reencode=no_reencoding)


def no_reencoding(data: bytes) -> Prepared | Refused:
    raise AssertionError("a PNG goes as it is")


def drawn(number: int) -> bytes:
    image = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(image).text((30, 30), f"Number {number}", "black", font=ImageFont.load_default(size=44))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def ocr_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OcrEngine]:
    made = OcrEngine(tmp_path_factory.mktemp("ocr"), grace=1.0)
    yield made
    made.close()


@pytest.fixture(
    params=[
        "memory",
        "gemini",
        "openai",
        pytest.param("ocr", marks=[pytest.mark.slow, pytest.mark.xdist_group("ocr")]),
        pytest.param("llama-server", marks=REAL),
        pytest.param("LiteLLM", marks=REAL),
        pytest.param("LiteLLM before llama-server", marks=REAL),
    ],
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield Bench(FakeEngine(), lambda number: f"img{number}".encode())
    elif request.param == "ocr":
        yield Bench(request.getfixturevalue("ocr_engine"), drawn)
    elif request.param == "openai":
        with FakeOpenAI() as server:
            local = OpenAiEngine(base_url=server.base_url, api_key=server.key, model="vision:7b", reencode=no_reencoding)
            yield Bench(local, numbered_picture, lambda: server.refused + server.faults)
            local.close()
    elif request.param == "LiteLLM":
        proxy: ModelServer = request.getfixturevalue("proxy")
        behind: FakeOpenAI = request.getfixturevalue("behind_the_proxy")
        with closing(engine_of(proxy)) as proxied:
            yield Bench(proxied, numbered_picture, lambda: behind.refused + behind.faults)
    elif request.param == "llama-server":
        with closing(engine_of(request.getfixturevalue("llama"))) as llama:
            yield Bench(llama, numbered_picture, sees=False)
    elif request.param == "LiteLLM before llama-server":
        request.getfixturevalue("llama")
        with closing(engine_of(request.getfixturevalue("proxy"), model="llama")) as proxied:
            yield Bench(proxied, numbered_picture, sees=False)
    else:
        with FakeGemini() as fake:
            engine = GeminiEngine(api_key=fake.key, model="gemini-3.5-flash-lite", base_url=fake.base_url)
            yield Bench(engine, numbered_picture, lambda: fake.refused + fake.faults)
            engine.close()


def call(bench: Bench, *numbers: int, form: Form = Form.TEXT, json_mode: bool = False, first_label: int = 1) -> Call:
    """As many of the pictures as the engine takes at once."""
    shown = numbers[: bench.engine.limits.pictures]
    pictures = tuple(
        Picture(number=label, mime="image/png", data=bench.picture(number))
        for label, number in enumerate(shown, start=first_label)
    )
    return Call(prompt="Which number?", form=form, json_mode=json_mode, pictures=pictures, timeout=120.0)


def said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_an_engine_says_what_it_is_and_what_it_can_take(bench):
    engine = bench.engine
    assert engine.name
    assert engine.model
    assert engine.limits.pictures >= 1
    assert engine.limits.raw_bytes >= 1_000_000
    assert all(isinstance(warning, str) and warning for warning in engine.warnings)


def test_a_text_speaks_of_every_picture_of_the_call(bench):
    asked = call(bench, 31, 72)
    answer = bench.engine.ask(asked)
    assert (answer.finish, answer.code, answer.detail) == (Finish.COMPLETE, None, "")
    assert answer.text
    if bench.sees:
        assert "31" in answer.text
        assert ("72" in answer.text) == (len(asked.pictures) == 2)
    assert bench.refused() == []


def test_json_is_one_document_about_all_pictures(bench):
    answer = bench.engine.ask(call(bench, 31, form=Form.JSON, json_mode=True))
    assert answer.finish is Finish.COMPLETE
    document = json.dumps(json.loads(answer.text))
    assert "31" in document or not bench.sees


@pytest.mark.parametrize("json_mode", [False, True])
def test_records_have_exactly_one_result_for_each_label_in_order(bench, json_mode):
    asked = call(bench, 31, 72, 45, form=Form.RECORDS, json_mode=json_mode)
    records = json.loads(bench.engine.ask(asked).text)
    if not bench.sees:
        assert [set(record) for record in records] == [{"index", "result"}] * len(records)
        assert all(isinstance(record["result"], str) != json_mode for record in records)
        return
    assert [set(record) for record in records] == [{"index", "result"}] * len(asked.pictures)
    assert [record["index"] for record in records] == [picture.number for picture in asked.pictures]
    for record, number in zip(records, (31, 72, 45), strict=False):
        assert isinstance(record["result"], str) != json_mode
        assert str(number) in said(record["result"])


def test_the_label_is_the_caller_s_whatever_it_is(bench):
    records = json.loads(bench.engine.ask(call(bench, 31, form=Form.RECORDS, first_label=9)).text)
    assert [record["index"] for record in records] == [9] or not bench.sees


def test_what_a_call_used_is_counted_and_the_model_named(bench):
    answer = bench.engine.ask(call(bench, 31))
    assert min(answer.input_tokens, answer.output_tokens) >= 0
    assert answer.model_version


def test_the_same_call_can_be_asked_again(bench):
    asked = call(bench, 31, form=Form.RECORDS)
    first, second = bench.engine.ask(asked), bench.engine.ask(asked)
    asked_twice = json.loads(first.text), json.loads(second.text)
    assert asked_twice[0] == asked_twice[1] or not bench.sees


def test_threads_that_ask_at_once_get_each_their_own_answer(bench):
    numbers = (31, 45, 72, 86)
    answers = at_once(*(lambda number=number: bench.engine.ask(call(bench, number)) for number in numbers))
    for number, answer in zip(numbers, answers, strict=True):
        assert answer.finish is Finish.COMPLETE
        if bench.sees:
            assert [other for other in numbers if str(other) in answer.text] == [number]


@pytest.mark.parametrize("kind", ["memory", "gemini", "openai", "ocr"])
def test_an_engine_that_never_asked_can_be_closed_and_closed_again(kind, tmp_path):
    engine: Engine
    if kind == "memory":
        engine = FakeEngine()
    elif kind == "openai":
        engine = OpenAiEngine(base_url="http://127.0.0.1:9/v1", api_key="", model="m", reencode=no_reencoding)
    elif kind == "gemini":
        engine = GeminiEngine(api_key="k", model="m", base_url="http://127.0.0.1:9")
    else:
        engine = OcrEngine(tmp_path / "ocr")
    engine.close()
    engine.close()
