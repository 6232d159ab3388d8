"""OpenAI-compatible servers: what is sent to them, and what each of their outcomes means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event

import pytest

from pipeline.decode.wire import MAX_JPEG
from pipeline.engines.openai import OpenAiEngine, check_model
from pipeline.engines.openai_errors import BadRequest, Unreadable, meaning
from pipeline.ports import Cause, ModelFault, ModelRefused, ModelUnavailable
from pipeline.types import MAX_OUTPUT_TOKENS, Call, Detail, Finish, Form, ItemCode, Picture, Tier
from tests.fakes.gemini import numbered_picture
from tests.fakes.gemini_behaviours import (
    CUT_OFF,
    EMPTY_TEXT,
    GARBAGE,
    NO_CANDIDATES,
    OUT_OF_TOKENS,
    RESET,
    always,
    blocked_answer,
    held,
)
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_contract import Refusal
from tests.fakes.reencode import fake_reencode

MODEL = "vision:7b"
SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer"}, "part": {"$ref": "#/$defs/part"}},
    "$defs": {"part": {"type": "string"}},
}
HEIC_OF_9 = numbered_picture(9, format="HEIC")


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=(MODEL, "other")) as server:
        yield server
        assert server.faults == server.refused == []


@pytest.fixture
def engine(fake: FakeOpenAI) -> Iterator[OpenAiEngine]:
    made = OpenAiEngine(base_url=fake.base_url, api_key=fake.key, model=MODEL, reencode=fake_reencode)
    yield made
    made.close()


def call(*numbers: int, form: Form = Form.TEXT, json_mode: bool = False, timeout: float = 30) -> Call:
    pictures = tuple(
        Picture(number=place, mime="image/png", data=numbered_picture(number)) for place, number in enumerate(numbers, start=1)
    )
    return Call(prompt="What is this?", form=form, json_mode=json_mode, pictures=pictures, timeout=timeout)


def refusing(status: int, message: str = "no", code: str | None = None) -> Callable[[object], Refusal]:
    return lambda _call: Refusal(status, message, code=code)


def test_each_picture_goes_under_its_own_label_after_the_prompt(fake, engine):
    answer = engine.ask(call(7, 8, 9))
    assert answer.text.splitlines() == ["Image 1 shows 7.", "Image 2 shows 8.", "Image 3 shows 9."]
    assert fake.calls[0].labels == (1, 2, 3)
    assert fake.calls[0].prompt[-1] == "What is this?"
    assert fake.calls[0].max_output_tokens == MAX_OUTPUT_TOKENS
    assert min(answer.input_tokens, answer.output_tokens) > 0
    assert answer.model_version == "vision:7b-q4"


@pytest.mark.parametrize(
    ("message", "code", "cause"),
    [
        ("Rate limit reached for requests", "rate_limit_exceeded", Cause.RATE),
        ("You exceeded your current quota", "insufficient_quota", Cause.ACCOUNT),
    ],
)
def test_a_limit_of_the_account_is_no_lack_of_capacity(fake, engine, message, code, cause):
    fake.script = refusing(429, message, code)
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(replace(call(7), tier=Tier.ECONOMY))
    assert raised.value.cause is cause


def test_a_call_without_pictures_is_a_prompt_alone(fake, engine):
    assert engine.ask(replace(call(), prompt="Make one of: Image 1 shows 7.")).finish is Finish.COMPLETE
    assert fake.calls[0].numbers == ()


@pytest.mark.parametrize(("detail", "sent"), [(Detail.LOW, "low"), (Detail.MEDIUM, "auto"), (Detail.HIGH, "high")])
def test_the_call_s_model_and_detail_are_what_is_asked_for(fake, engine, detail, sent):
    engine.ask(replace(call(7), model="other", detail=detail))
    assert fake.calls[0].model == "other"
    assert fake.sent[0].details == (sent,)


def test_records_are_asked_for_by_schema_and_taken_out_of_their_object(fake, engine):
    records = json.loads(engine.ask(replace(call(7, 8, form=Form.RECORDS, json_mode=True), schema=SCHEMA)).text)
    assert records == [{"index": i, "result": {"number": n, "part": f"picture {n}"}} for i, n in ((1, 7), (2, 8))]
    assert fake.sent[0].format == "json_schema"


@pytest.mark.parametrize(
    ("without", "formats"),
    [({"json_schema"}, ["json_object"]), ({"json_schema", "json_object"}, ["text"]), ({"json_object"}, ["json_schema"])],
)
def test_a_server_without_a_form_of_json_is_asked_in_words_and_from_then_on_at_once(fake, engine, without, formats):
    fake.without = without
    for _ in range(2):
        records = json.loads(engine.ask(replace(call(7, form=Form.RECORDS, json_mode=True), schema=SCHEMA)).text)
        assert [record["result"]["number"] for record in records] == [7]
    assert [sent.format for sent in fake.sent] == formats * 2


def test_merged_json_works_where_there_is_no_json_object(fake, engine):
    fake.without = {"json_object"}
    assert json.loads(engine.ask(call(7, form=Form.JSON)).text)["pictures"][0]["number"] == 7


def test_a_server_that_knows_only_the_new_name_of_the_limit_is_told_by_it(fake, engine):
    fake.without = {"max_tokens"}
    for _ in range(2):
        assert engine.ask(call(7)).finish is Finish.COMPLETE
    assert [sent.limit_name for sent in fake.sent] == ["max_completion_tokens"] * 2


def test_what_such_servers_do_not_take_goes_as_a_jpeg_that_shows_the_same(fake, engine):
    pictures = tuple(
        Picture(number=place, mime=mime, data=numbered_picture(place, format=kind))
        for place, (kind, mime) in enumerate((("HEIC", "image/heic"), ("WEBP", "image/webp"), ("JPEG", "image/jpeg")), start=1)
    )
    answer = engine.ask(replace(call(), pictures=pictures))
    assert answer.text.splitlines() == [f"Image {n} shows {n}." for n in (1, 2, 3)]
    assert answer.reencoded == {1, 2}
    assert set(fake.calls[0].mimes) == {"image/jpeg"}


def test_a_picture_that_is_too_large_goes_smaller(fake, engine):
    picture = Picture(number=1, mime="image/png", data=numbered_picture(7, pad_to=MAX_JPEG + 1000))
    assert engine.ask(replace(call(), pictures=(picture,))).text == "Image 1 shows 7."
    assert fake.calls[0].body_bytes < 1_000_000


def test_a_picture_that_can_not_be_made_one_is_no_fault_of_the_call(fake, engine):
    picture = Picture(number=1, mime="image/heic", data=HEIC_OF_9[: len(HEIC_OF_9) // 2])
    answer = engine.ask(replace(call(), pictures=(picture,)))
    assert (answer.finish, answer.code) == (Finish.UNREADABLE, ItemCode.MODEL_REFUSED)
    assert fake.calls == []


def test_a_truncated_answer_gives_no_text_but_its_cost(fake, engine):
    fake.script = always(OUT_OF_TOKENS)
    answer = engine.ask(call(1))
    assert (answer.finish, answer.text) == (Finish.TRUNCATED, "")
    assert answer.output_tokens > 0


def test_a_filtered_answer_is_blocked(fake, engine):
    fake.script = always(blocked_answer("SAFETY"))
    answer = engine.ask(call(1))
    assert (answer.finish, answer.code) == (Finish.BLOCKED, ItemCode.SAFETY_BLOCKED)


@pytest.mark.parametrize("behaviour", [EMPTY_TEXT, NO_CANDIDATES])
def test_an_answer_that_says_nothing_is_a_fault(fake, engine, behaviour):
    fake.script = always(behaviour)
    with pytest.raises(ModelFault):
        engine.ask(call(1))


@pytest.mark.parametrize(
    ("behaviour", "cause"), [(RESET, Cause.OVERLOADED), (CUT_OFF, Cause.OVERLOADED), (GARBAGE, Cause.GARBLED)]
)
def test_what_may_succeed_if_it_is_sent_again_says_so(fake, engine, behaviour, cause):
    fake.script = always(behaviour)
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert raised.value.cause is cause


def test_a_server_that_hangs_is_given_up_after_the_call_s_time(fake, engine):
    release = Event()
    fake.script = always(held(release))
    with pytest.raises(ModelUnavailable):
        engine.ask(call(1, timeout=0.3))
    release.set()


def test_a_429_is_waited_for_as_long_as_it_asks(fake, engine):
    fake.script = refusing(429, "Rate limit reached")
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert (raised.value.cause, raised.value.retry_after, raised.value.notice) == (Cause.RATE, 7, "")


def test_no_credit_is_told_to_the_job(fake, engine):
    fake.script = refusing(
        429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"
    )
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert raised.value.cause is Cause.ACCOUNT
    assert raised.value.notice


def test_a_wrong_key_is_told_without_the_key(fake):
    engine = OpenAiEngine(base_url=fake.base_url, api_key="sk-wrong-key-of-mine", model=MODEL, reencode=fake_reencode)
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    engine.close()
    assert raised.value.cause is Cause.ACCOUNT
    assert "401" in raised.value.notice
    assert "sk-" not in raised.value.notice


def test_a_model_that_is_not_there_is_told_to_the_job(fake, engine):
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(replace(call(1), model="gone"))
    assert raised.value.cause is Cause.MODEL
    assert "gone" in raised.value.notice


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Failed to load image or audio file"),
        (400, "At most 1 image(s) may be provided in one request."),
        (400, "the request exceeds the available context size. try increasing the context size or enable context shift"),
        (413, "Request Entity Too Large"),
    ],
)
def test_what_fewer_pictures_may_mend_is_no_fault_of_the_call(fake, engine, status, message):
    fake.script = refusing(status, message)
    assert engine.ask(call(1, 2)).finish is Finish.UNREADABLE


def test_any_other_refusal_is_for_good(fake, engine):
    fake.script = refusing(400, "something else")
    with pytest.raises(ModelRefused):
        engine.ask(call(1))


def test_a_500_is_a_fault_of_the_call(fake, engine):
    fake.script = refusing(500, "The server had an error")
    with pytest.raises(ModelFault):
        engine.ask(call(1))


@pytest.mark.parametrize(
    ("status", "body", "expected", "said"),
    [
        (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}, BadRequest, "response_format"),  # LM Studio
        (400, {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, BadRequest, "bad"),  # vLLM
        (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "no"}]}, BadRequest, "max_tokens"),  # FastAPI
        (
            500,
            {"error": {"code": 500, "message": "image input is not supported by this server"}},
            ModelUnavailable,
            "image input",
        ),
        (
            400,
            {"error": {"code": 400, "message": "exceeds the context size", "type": "exceed_context_size_error"}},
            Unreadable,
            "exceed",
        ),
        (400, {"error": {"message": "bad", "type": None}}, BadRequest, "bad"),
        (400, {"error": {"error": {"message": "nested"}}}, BadRequest, "nested"),
        (400, {"errors": [{"message": "listed"}]}, BadRequest, "listed"),
        (400, {"detail": "said"}, BadRequest, "said"),
        (413, {"message": "no"}, Unreadable, "no"),
        (500, {"error": "failed to parse grammar"}, BadRequest, "grammar"),
        (500, {"error": "it broke"}, ModelFault, "it broke"),
        (
            500,
            {"error": {"message": "litellm.InternalServerError: OpenAIException - Connection error.", "code": "500"}},
            ModelUnavailable,
            "Connection error",
        ),
        (
            400,
            {"error": {"message": "/chat/completions: Invalid model name passed in model=gone.", "code": "400"}},
            ModelUnavailable,
            "Invalid model name",
        ),
        (
            503,
            {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
            ModelUnavailable,
            "Loading model",
        ),
    ],
)
def test_each_server_s_own_way_to_say_it_is_understood(status, body, expected, said):
    error = meaning(status, None, json.dumps(body).encode())
    assert isinstance(error, expected)
    assert said in str(error)


def test_an_error_page_is_read_as_its_words():
    error = meaning(400, None, b"<html><h1>Bad Request</h1><p>the image is broken</p></html>")
    assert isinstance(error, Unreadable)
    assert "Bad Request the image is broken" in str(error)


def test_an_unknown_model_behind_a_proxy_is_waited_for_as_a_404_is():
    behind = meaning(400, None, b'{"error": {"message": "Invalid model name passed in model=gone"}}')
    plain = meaning(404, None, b'{"error": {"message": "model gone not found"}}')
    for error in (behind, plain):
        assert isinstance(error, ModelUnavailable)
        assert error.cause is Cause.MODEL
        assert error.notice


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0.5", 0.5), ("soon", 20), (None, 20), ("Wed, 21 Oct 2015 07:28:00 GMT", 20)]
)
def test_the_wait_that_is_asked_for_is_seconds_or_a_date(header, seconds):
    error = meaning(429, header, b"")
    assert isinstance(error, ModelUnavailable)
    assert error.retry_after == seconds


def test_the_doctor_s_question_is_answered(fake):
    check_model(base_url=fake.base_url, api_key=fake.key, model=MODEL, timeout=5)
    with pytest.raises(ModelRefused, match="there are vision:7b, other"):
        check_model(base_url=fake.base_url, api_key=fake.key, model="gone", timeout=5)
    with pytest.raises(ModelUnavailable, match="HTTP 401"):
        check_model(base_url=fake.base_url, api_key="", model=MODEL, timeout=5)
    with pytest.raises(ModelUnavailable, match="ConnectError"):
        check_model(base_url="http://127.0.0.1:9/v1", api_key="", model=MODEL, timeout=5)
