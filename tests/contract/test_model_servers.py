"""What real model servers answer, and what the engine makes of it: see docs/reference/model-servers.md.

`make real-servers` asks the servers themselves. The answers that they gave are kept in RECORDED and checked in every run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engines.openai import OpenAiEngine, probe
from pipeline.engines.openai_errors import meaning
from pipeline.ports import Cause, EngineConfig, ModelUnavailable, ProbeFailed
from pipeline.types import Call, Finish, Form, ItemCode, Picture
from testbed.model_servers import LLAMA_SERVER, ModelServer, llama_server, missing
from tests.fakes.gemini import numbered_picture
from tests.fakes.openai_contract import Refusal
from tests.fakes.reencode import fake_reencode


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that asks real servers. One worker of xdist starts them."""
    return pytest.mark.real(pytest.mark.xdist_group("real servers")(test))


#: Answers of LiteLLM 1.79.3: what was asked, the status, and the body. None of them says anything about a picture.
RECORDED = {
    "the server behind it is away": (
        500,
        {
            "error": {
                "message": "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.. "
                "Received Model Group=dead\nAvailable Model Group Fallbacks=None",
                "type": None,
                "param": None,
                "code": "500",
            }
        },
    ),
    "it has no such model": (
        400,
        {
            "error": {
                "message": "{'error': '/chat/completions: Invalid model name passed in model=nope. "
                "Call `/v1/models` to view available models for your key.'}",
                "type": "None",
                "param": "None",
                "code": "400",
            }
        },
    ),
    "its key is wrong": (
        400,
        {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}},
    ),
    "the server behind it has no such model": (
        404,
        {
            "error": {
                "message": "litellm.NotFoundError: NotFoundError: OpenAIException - model 'gone' not found. "
                "Received Model Group=gone\nAvailable Model Group Fallbacks=None",
                "type": None,
                "param": None,
                "code": "404",
            }
        },
    ),
}


@pytest.mark.parametrize("what", RECORDED)
def test_the_job_waits_if_a_proxy_or_what_stands_behind_it_is_not_ready(what):
    status, body = RECORDED[what]
    error = meaning(status, None, json.dumps(body).encode())
    assert isinstance(error, ModelUnavailable), error


def engine_of(server: ModelServer, **changed: str) -> OpenAiEngine:
    given = {"base_url": server.base_url, "api_key": server.api_key, "model": server.model, **changed}
    return OpenAiEngine(**given, reencode=fake_reencode)


def call(*pictures: bytes, mime: str = "image/png", form: Form = Form.RECORDS) -> Call:
    shown = tuple(Picture(number=place, mime=mime, data=data) for place, data in enumerate(pictures, start=1))
    return Call(prompt="Which number?", form=form, json_mode=True, pictures=shown, timeout=120.0)


def config_of(server: ModelServer, tmp_path: Path, **changed: str) -> EngineConfig:
    given = {"base_url": server.base_url, "api_key": server.api_key, "model": server.model, **changed}
    return EngineConfig(**given, directory=tmp_path)


@contextmanager
def small(folder: Path, *options: str, eyes: bool = True, api_key: str = "") -> Iterator[ModelServer]:
    """A llama-server with other options than the shared one."""
    if why := missing(LLAMA_SERVER):
        pytest.skip(why)
    with llama_server(folder, *options, eyes=eyes, api_key=api_key) as server:
        yield server


# LiteLLM


@real
@pytest.mark.parametrize(("model", "cause"), [("dead", Cause.OVERLOADED), ("gone", Cause.MODEL), ("unknown", Cause.MODEL)])
def test_litellm_without_a_model_that_answers_makes_the_job_wait(proxy, model, cause):
    with closing(engine_of(proxy, model=model)) as engine, pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(numbered_picture(7)))
    assert raised.value.cause is cause


@real
@pytest.mark.parametrize(("model", "key"), [("vision:7b", "sk-a-wrong-key-of-mine"), ("locked", "")])
def test_litellm_with_a_wrong_key_makes_the_job_wait_and_the_notice_does_not_show_it(proxy, model, key):
    given = engine_of(proxy, model=model, api_key=key or proxy.api_key)
    with closing(given) as engine, pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(numbered_picture(7)))
    assert raised.value.cause is Cause.ACCOUNT
    assert "sk-a-wrong" not in raised.value.notice


@real
def test_litellm_passes_on_what_the_server_says_of_a_picture(proxy, behind_the_proxy):
    behind_the_proxy.script = lambda _call: Refusal(400, "Failed to load image or audio file")
    try:
        with closing(engine_of(proxy)) as engine:
            assert engine.ask(call(numbered_picture(7), numbered_picture(8))).finish is Finish.UNREADABLE
    finally:
        behind_the_proxy.script = None


@real
@pytest.mark.parametrize("without", [{"json_schema"}, {"json_schema", "json_object"}, {"max_tokens"}])
def test_what_the_server_behind_litellm_lacks_is_found_out(proxy, behind_the_proxy, without):
    behind_the_proxy.without = without
    try:
        with closing(engine_of(proxy)) as engine:
            records = json.loads(engine.ask(call(numbered_picture(7))).text)
    finally:
        behind_the_proxy.without = set()
    assert [record["result"] for record in records] == [{"number": 7}]


@real
def test_the_probe_of_litellm_finds_its_model_and_names_them_if_it_has_no_such(proxy, tmp_path):
    assert "vision:7b is there" in probe(config_of(proxy, tmp_path), 30.0)
    with pytest.raises(ProbeFailed, match="vision:7b, gone, locked, dead"):
        probe(config_of(proxy, tmp_path, model="unknown"), 30.0)


# llama-server


@real
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIC", "TIFF"])
def test_llama_server_answers_about_a_picture_of_every_kind(llama, kind):
    with closing(engine_of(llama)) as engine:
        answer = engine.ask(call(numbered_picture(7, format=kind), mime=f"image/{kind.lower()}"))
    assert answer.finish is Finish.COMPLETE
    assert answer.input_tokens > 0


@real
def test_llama_server_answers_about_fifty_pictures(llama):
    with closing(engine_of(llama)) as engine:
        answer = engine.ask(call(*(numbered_picture(number) for number in range(50))))
    assert answer.finish is Finish.COMPLETE
    assert json.loads(answer.text)


@real
def test_llama_server_keeps_to_a_schema_with_references_and_choices(llama):
    schema = {
        "type": "object",
        "properties": {"code": {"$ref": "#/$defs/code"}, "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "required": ["code", "size"],
        "additionalProperties": False,
        "$defs": {"code": {"type": "string", "pattern": "^[a-c]{2}$"}},
    }
    with closing(engine_of(llama)) as engine:
        records = json.loads(engine.ask(replace(call(numbered_picture(7)), schema=schema)).text)
    assert records
    for record in records:
        assert set(record["result"]) == {"code", "size"}
        assert isinstance(record["result"]["code"], str)  # its pattern is told in words, which this model does not understand
        assert record["result"]["size"] is None or isinstance(record["result"]["size"], int)


@real
def test_llama_server_refuses_a_call_with_a_broken_picture_and_the_engine_says_a_picture_is_at_fault(llama):
    with closing(engine_of(llama)) as engine:
        answer = engine.ask(call(numbered_picture(7), numbered_picture(8)[:40]))
    assert (answer.finish, answer.code) == (Finish.UNREADABLE, ItemCode.MODEL_REFUSED)


@real
def test_more_pictures_than_the_context_of_llama_server_holds_are_asked_again_with_fewer(tmp_path):
    with small(tmp_path, "--ctx-size", "512") as server, closing(engine_of(server)) as engine:
        answer = engine.ask(call(*(numbered_picture(number) for number in range(50))))
    assert answer.finish is Finish.UNREADABLE


@real
def test_llama_server_without_its_eyes_and_with_another_key_makes_the_job_wait(tmp_path):
    key = "sk-key-of-llama-server"
    with small(tmp_path, eyes=False, api_key=key) as server:
        with closing(engine_of(server)) as engine, pytest.raises(ModelUnavailable) as blind:
            engine.ask(call(numbered_picture(7)))
        with closing(engine_of(server, api_key="sk-wrong-key")) as engine, pytest.raises(ModelUnavailable) as locked:
            engine.ask(call(numbered_picture(7)))
    assert blind.value.cause is Cause.MODEL
    assert "image" in blind.value.notice
    assert locked.value.cause is Cause.ACCOUNT


@real
def test_the_probe_of_llama_server_finds_its_model(llama, tmp_path):
    assert "tiny is there" in probe(config_of(llama, tmp_path), 10.0)
