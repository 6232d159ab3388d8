from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from config.chosen_engine import build_engine
from config.settings import load_settings
from pipeline.engines.gemini import MOST_RAW_BYTES, GeminiEngine
from pipeline.ports import Cause, ModelFault, ModelRefused, ModelUnavailable
from pipeline.types import Call, Detail, Finish, Form, ItemCode, Picture, Thinking, Tier
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import (
    CUT_OFF,
    EMPTY_TEXT,
    GARBAGE,
    NO_CANDIDATES,
    OUT_OF_TOKENS,
    RESET,
    Behaviour,
    always,
    blocked_answer,
    blocked_prompt,
    daily_quota,
    failing,
    held,
    rate_limited,
)


@pytest.fixture
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as server:
        yield server
        assert server.faults == []
        assert server.refused == []
        assert not server.files.kept
        assert all(call.store is False for call in server.calls), "Google keeps what it is not told to forget"


@pytest.fixture
def engine(fake: FakeGemini) -> Iterator[GeminiEngine]:
    made = GeminiEngine(api_key=fake.key, model="gemini-3.5-flash-lite", base_url=fake.base_url, pause=lambda _seconds: None)
    yield made
    made.close()


def call(*numbers: int, form: Form = Form.TEXT, json_mode: bool = False, pad_to: int | None = None, timeout: float = 30) -> Call:
    pictures = tuple(
        Picture(number=place, mime="image/png", data=numbered_picture(number, pad_to=pad_to))
        for place, number in enumerate(numbers, start=1)
    )
    return Call(prompt="What is this?", form=form, json_mode=json_mode, pictures=pictures, timeout=timeout)


def test_each_picture_goes_under_its_own_label_after_the_prompt(fake, engine):
    answer = engine.ask(call(7, 8, 9))
    assert answer.text.splitlines() == ["Image 1 shows 7.", "Image 2 shows 8.", "Image 3 shows 9."]
    assert fake.calls[0].labels == (1, 2, 3)
    assert fake.calls[0].prompt[-1] == "What is this?"
    assert answer.input_tokens > 0
    assert answer.output_tokens > 0
    assert answer.model_version


def test_json_mode_asks_for_json(fake, engine):
    answer = engine.ask(call(7, form=Form.JSON))
    assert json.loads(answer.text)["pictures"][0]["number"] == 7


@pytest.mark.parametrize("json_mode", [False, True])
def test_records_are_asked_for_by_schema(fake, engine, json_mode):
    answer = engine.ask(call(7, 8, form=Form.RECORDS, json_mode=json_mode))
    assert [record["index"] for record in json.loads(answer.text)] == [1, 2]


def test_records_of_a_schema_come_in_its_shape_and_what_the_model_does_not_take_is_told_in_words(fake, engine):
    schema = {
        "type": "object",
        "properties": {
            "what": {"$ref": "#/$defs/what"},
            "number": {"type": "integer"},
            "tags": {"type": "array", "minItems": 99},
        },
        "required": ["what", "number"],
        "$defs": {"what": {"type": "string", "pattern": "^picture"}},
    }
    answer = engine.ask(replace(call(7, 8, form=Form.RECORDS, json_mode=True), schema=schema))
    results = [record["result"] for record in json.loads(answer.text)]
    assert [(result["what"], result["number"]) for result in results] == [("picture 7", 7), ("picture 8", 8)]
    assert "minItems" not in json.dumps(fake.calls[0].schema)
    assert '"minItems":99' in fake.calls[0].prompt[0]


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "IMAGE_SAFETY"])
def test_a_blocked_answer_is_known_by_its_finish_reason(fake, engine, reason):
    fake.script = always(blocked_answer(reason))
    answer = engine.ask(call(1))
    assert (answer.finish, answer.code, answer.detail) == (Finish.BLOCKED, ItemCode.SAFETY_BLOCKED, reason)


def test_a_recitation_has_a_code_of_its_own(fake, engine):
    fake.script = always(blocked_answer("RECITATION"))
    assert engine.ask(call(1)).code is ItemCode.RECITATION


def test_a_blocked_prompt_is_known_by_its_feedback(fake, engine):
    fake.script = always(blocked_prompt("PROHIBITED_CONTENT"))
    assert engine.ask(call(1)).finish is Finish.BLOCKED


def test_a_truncated_answer_gives_no_text_but_its_cost(fake, engine):
    fake.script = always(OUT_OF_TOKENS)
    answer = engine.ask(call(1))
    assert (answer.finish, answer.text) == (Finish.TRUNCATED, "")
    assert answer.output_tokens > 0


@pytest.mark.parametrize("thinking", [None, *Thinking])
def test_the_model_thinks_as_much_as_is_asked_for(fake, engine, thinking):
    engine.ask(replace(call(1), thinking=thinking))
    assert fake.calls[0].thinking == (thinking.value.upper() if thinking else None)


@pytest.mark.parametrize("pad_to", [None, MOST_RAW_BYTES + 1])
def test_ultra_detail_is_asked_for_with_each_picture(fake, engine, pad_to):
    engine.ask(replace(call(1, 2, pad_to=pad_to), detail=Detail.ULTRA))
    engine.ask(call(1, 2))
    assert [seen.levels for seen in fake.calls] == [("MEDIA_RESOLUTION_ULTRA_HIGH",) * 2, (None, None)]


def test_an_answer_that_could_be_continued_is_a_truncated_one(fake, engine):
    fake.script = always(Behaviour(finish="CONTINUATION"))
    answer = engine.ask(call(1, 2))
    assert (answer.finish, answer.text) == (Finish.TRUNCATED, "")
    assert answer.output_tokens > 0


@pytest.mark.parametrize(
    "reason",
    ["MALFORMED_RESPONSE", "NO_IMAGE", "MISSING_THOUGHT_SIGNATURE", "TOO_MANY_TOOL_CALLS", "UNEXPECTED_TOOL_CALL", "NEW_REASON"],
)
def test_an_answer_that_failed_by_itself_is_a_fault_of_the_answer(fake, engine, reason):
    fake.script = always(blocked_answer(reason))
    with pytest.raises(ModelFault, match=reason):
        engine.ask(call(1))


@pytest.mark.parametrize("reason", ["ESCALATION", "PUP_LIMITED_DISABLED"])
def test_an_account_that_is_answered_no_more_stops_the_calls_and_the_job_says_so(fake, engine, reason):
    fake.script = always(blocked_answer(reason))
    with pytest.raises(ModelUnavailable) as caught:
        engine.ask(call(1))
    assert caught.value.cause is Cause.ACCOUNT
    assert reason in caught.value.notice


@pytest.mark.parametrize(
    ("tier", "behaviour", "cause"),
    [
        (Tier.ECONOMY, rate_limited("3s"), Cause.RATE),
        (Tier.ECONOMY, daily_quota(), Cause.QUOTA),
        (Tier.ECONOMY, failing(504), Cause.OVERLOADED),
        (Tier.STANDARD, failing(429, "Resource has been exhausted (e.g. check quota)."), Cause.RATE),
        (Tier.STANDARD, failing(503), Cause.OVERLOADED),
    ],
)
def test_a_quota_is_one_in_each_tier_and_only_an_economy_call_is_shed(fake, engine, tier, behaviour, cause):
    fake.script = always(behaviour)
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(replace(call(7), tier=tier))
    assert raised.value.cause is cause


def test_google_keeps_requests_only_where_the_setting_says_so():
    with FakeGemini() as fake:
        for env in ({}, {"GEMINI_STORE": "false"}, {"GEMINI_STORE": "true"}):
            settings = load_settings({"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url, **env})
            engine = build_engine(settings, reencode=lambda _: pytest.fail("not needed"))
            engine.ask(call(1, 2))
            engine.close()
        assert [seen.store for seen in fake.calls] == [False, False, True]


def test_a_picture_the_model_cannot_read_is_no_fault_of_the_call(fake, engine):
    fake.unreadable = {2}
    assert engine.ask(call(1, 2)).finish is Finish.UNREADABLE


@pytest.mark.parametrize("behaviour", [EMPTY_TEXT, NO_CANDIDATES, failing(500)])
def test_an_answer_that_says_nothing_is_a_fault(fake, engine, behaviour):
    fake.script = always(behaviour)
    with pytest.raises(ModelFault):
        engine.ask(call(1))


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        *((behaviour, Cause.OVERLOADED) for behaviour in (failing(408), failing(502), failing(503), failing(504), RESET)),
        *((behaviour, Cause.GARBLED) for behaviour in (GARBAGE, CUT_OFF)),
    ],
)
def test_what_may_succeed_if_it_is_sent_again_says_so_and_is_not_sent_again_here(fake, engine, behaviour, cause):
    fake.script = always(behaviour)
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert len(fake.calls) == 1
    assert raised.value.cause in {cause, Cause.OVERLOADED}
    assert raised.value.retry_after > 0


def test_a_model_that_hangs_is_given_up_after_the_call_s_time(fake, engine):
    release = Event()
    fake.script = always(held(release))
    with pytest.raises(ModelUnavailable):
        engine.ask(call(1, timeout=0.3))
    release.set()


def test_a_429_is_not_retried_but_waited_for_as_long_as_it_asks(fake, engine):
    fake.script = always(rate_limited("47s"))
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert len(fake.calls) == 1
    assert (raised.value.retry_after, raised.value.cause) == (47, Cause.RATE)
    assert raised.value.notice == ""


def test_a_429_without_a_time_is_waited_for_too(fake, engine):
    fake.script = always(rate_limited(None))
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert raised.value.retry_after > 0


def test_a_used_up_day_is_told_to_the_job(fake, engine):
    fake.script = always(daily_quota())
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert raised.value.retry_after > 60
    assert "today" in raised.value.notice
    assert raised.value.cause is Cause.QUOTA


def test_a_wrong_key_is_told_to_the_job_and_nothing_is_retried(fake):
    engine = GeminiEngine(api_key="wrong", model="gemini-3.5-flash-lite", base_url=fake.base_url)
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    engine.close()
    assert raised.value.notice
    assert "wrong" not in raised.value.notice
    assert raised.value.cause is Cause.ACCOUNT


@pytest.mark.parametrize(("code", "cause"), [(402, Cause.ACCOUNT), (403, Cause.ACCOUNT), (404, Cause.MODEL)])
def test_what_a_person_has_to_mend_is_told_to_the_job(fake, engine, code, cause):
    fake.script = always(failing(code))
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(call(1))
    assert raised.value.notice
    assert raised.value.cause is cause


def test_the_call_s_model_and_detail_are_what_is_asked_for(fake, engine):
    full = engine.ask(call(1))
    less = engine.ask(replace(call(1), model="gemini-3.8-flash", detail=Detail.LOW))
    assert [seen.model for seen in fake.calls] == ["gemini-3.5-flash-lite", "gemini-3.8-flash"]
    assert full.input_tokens - less.input_tokens == 1120 - 280
    assert less.model_version != full.model_version


@pytest.mark.parametrize("words", ["", "Request contains an invalid argument."])
@pytest.mark.parametrize(
    "lacks", [{"schema"}, {"json", "schema"}, {"schema", "json", "system"}], ids=lambda lacks: "+".join(sorted(lacks))
)
def test_a_model_that_refuses_a_way_of_asking_is_asked_in_another_one_and_from_then_on_at_once(fake, engine, lacks, words):
    fake.lacks, fake.lack_words = lacks, words
    asked = replace(
        call(7, 8, form=Form.RECORDS, json_mode=True), schema={"type": "object", "properties": {"n": {"type": "integer"}}}
    )
    for _ in range(2):
        assert json.loads(engine.ask(asked).text) == [{"index": 1, "result": {"n": 7}}, {"index": 2, "result": {"n": 8}}]
    assert len(fake.calls) == 2
    assert [picture for seen in fake.calls for picture in seen.numbers] == [7, 8, 7, 8]


@pytest.mark.parametrize(
    "words",
    [
        "Provided image is not valid.",
        "Request contains an invalid argument.",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
def test_a_400_on_several_pictures_leaves_open_which_one_it_is_about(fake, engine, words):
    fake.script = always(failing(400, words))
    answer = engine.ask(call(1, 2))
    assert (answer.finish, answer.code) == (Finish.UNREADABLE, ItemCode.MODEL_REFUSED)
    assert words in answer.detail


def test_a_field_that_no_picture_can_cause_fails_the_call(fake, engine):
    fake.script = always(failing(400, 'Invalid JSON payload received. Unknown name "store": Cannot find field.'))
    with pytest.raises(ModelRefused, match="store"):
        engine.ask(call(1, 2))


def test_records_are_taken_out_of_whatever_stands_around_them(fake, engine):
    fake.script = always(Behaviour(text=lambda text: f"Sure:\n```json\n{text}\n```\nIs that all?"))
    answer = engine.ask(call(7, 8, form=Form.RECORDS))
    assert json.loads(answer.text) == [{"index": 1, "result": "picture 7"}, {"index": 2, "result": "picture 8"}]


def test_any_other_refusal_is_for_good(fake, engine):
    fake.script = always(failing(400))
    with pytest.raises(ModelRefused):
        engine.ask(call(1))


def test_a_picture_too_large_for_a_request_goes_by_the_files_api_and_is_deleted(fake, engine):
    answer = engine.ask(call(5, pad_to=MOST_RAW_BYTES + 1000))
    assert answer.text == "Image 1 shows 5."
    assert len(fake.files.uploaded) == 1
    assert not fake.files.kept


def test_an_uploaded_picture_is_deleted_also_when_the_call_fails(fake, engine):
    fake.script = always(failing(500))
    with pytest.raises(ModelFault):
        engine.ask(call(5, pad_to=MOST_RAW_BYTES + 1000))
    assert not fake.files.kept


class Page(BaseHTTPRequestHandler):
    """Answers with what its server was given; keeps what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["x-goog-api-key"]))
        status, body, headers = self.server.page
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[ThreadingHTTPServer]:
    """A server in Gemini's place that answers as no Gemini would: `page` is what with, `asked` what for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.daemon_threads = True
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def answered(page: ThreadingHTTPServer, status: int, body: bytes, model: str = "m", key: str = "k", **headers: str):
    page.page = (status, body, headers)
    made = GeminiEngine(api_key=key, model=model, base_url=f"{page.url}/")
    try:
        return made.ask(call(1))
    finally:
        made.close()


def _said(message: str, status: str = "INVALID_ARGUMENT") -> bytes:
    return json.dumps({"error": {"code": 400, "message": message, "status": status}}).encode()


STOPPED = b'{"candidates":[{"content":{"parts":[{"text":"%s"}]},"finishReason":"%s"}],"usageMetadata":{"promptTokenCount":%s}}'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (STOPPED % (b"a", b"STOP", b"5"), "a"),
        (STOPPED % (b"a\\ud800b", b"STOP", b"5"), "a\ud800b"),
        (STOPPED % (b"a", b"stop", b'"5"'), "a"),
        (STOPPED % (b"a", b"STOP", b"5.0"), "a"),
        (b'{"unheardOf":[{}],' + (STOPPED % (b"a", b"STOP", b"5"))[1:], "a"),
    ],
)
def test_an_answer_is_read_as_generously_as_it_can_be(page, body, text):
    answer = answered(page, 200, body)
    assert (answer.text, answer.input_tokens, answer.finish) == (text, 5, Finish.COMPLETE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"candidates":[null]}',
        b'{"candidates":5}',
        b'{"candidates":[{"finishReason":5}]}',
        b'{"candidates":[{"content":{"parts":[{"text":{}}]}}]}',
        b'{"x":' + b"[" * 100_000,
    ],
    ids=lambda body: str(body[:40]),
)
def test_what_is_no_answer_is_garbled_whatever_it_is(page, body):
    with pytest.raises(ModelUnavailable) as told:
        answered(page, 200, body)
    assert told.value.cause is Cause.GARBLED


@pytest.mark.parametrize(
    ("status", "cause"), [(403, Cause.ACCOUNT), (404, Cause.MODEL), (429, Cause.RATE), (503, Cause.OVERLOADED)]
)
@pytest.mark.parametrize(
    "body",
    [
        "<h1>D\u00e9pass\u00e9</h1>".encode("latin-1"),
        b"",
        b"[]",
        b'{"error":{"message":5,"details":null}}',
        b'{"error":{"details":[{"reason":["a"],"violations":null,"retryDelay":5}]}}',
        b'{"error":{"details":[{"violations":["a"]}]}}',
    ],
)
def test_an_error_page_of_any_kind_is_known_by_its_status(page, status, cause, body):
    with pytest.raises(ModelUnavailable) as told:
        answered(page, status, body)
    assert told.value.cause is cause


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("m", "/v1beta/models/m:generateContent"),
        ("models/m", "/v1beta/models/m:generateContent"),
        ("tunedModels/m", "/v1beta/tunedModels/m:generateContent"),
        ("gateway/m", "/v1beta/models/gateway/m:generateContent"),
        ("m:tag", "/v1beta/models/m:tag:generateContent"),
    ],
)
def test_the_model_is_named_in_the_path_and_the_key_in_its_header(page, model, path):
    answered(page, 200, STOPPED % (b"a", b"STOP", b"5"), model=model, key=" AIza-key\n")
    assert page.asked == [(path, "AIza-key")]


def test_the_key_follows_no_redirect(page):
    with pytest.raises(ModelUnavailable, match="307") as told:
        answered(page, 307, b"", Location=f"{page.url}/elsewhere?key=k")
    assert len(page.asked) == 1
    assert told.value.cause is Cause.ADDRESS
    assert f"{page.url}/elsewhere" in told.value.notice
    assert "?key" not in told.value.notice


@pytest.mark.parametrize(
    ("status", "body", "cause", "word"),
    [
        (400, _said("API key not valid. Please pass a valid API key."), Cause.ACCOUNT, "GEMINI_API_KEY"),
        (400, _said("API key expired. Please renew the API key."), Cause.ACCOUNT, "GEMINI_API_KEY"),
        (400, _said("User location is not supported for the API use.", "FAILED_PRECONDITION"), Cause.ACCOUNT, "Google offers"),
        (400, _said("Please enable billing on project #1.", "FAILED_PRECONDITION"), Cause.ACCOUNT, "billing"),
        (405, b"", Cause.ADDRESS, "GEMINI_BASE_URL"),
        (200, b"<!DOCTYPE html><title>Log in</title>", Cause.ADDRESS, "web page"),
        (404, b"<html><body>Not Found", Cause.ADDRESS, "GEMINI_BASE_URL"),
    ],
)
def test_what_is_about_the_key_the_region_or_the_address_fails_no_image(page, status, body, cause, word):
    with pytest.raises(ModelUnavailable) as told:
        answered(page, status, body)
    assert told.value.cause is cause
    assert word in told.value.notice


def test_a_loopback_address_is_asked_without_the_environment_s_proxy(page, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answered(page, 200, STOPPED % (b"a", b"STOP", b"5")).text == "a"
