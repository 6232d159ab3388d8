"""A job's model, from the request to the engine, and what it cost on the job."""

from __future__ import annotations

import base64

import pytest
from sqlalchemy import select

from pipeline.engines.governed import GovernedEngine
from pipeline.engines.limiter import LocalLimiter
from pipeline.models import Model
from pipeline.notes import WARNINGS, NoteCode
from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import Answer, Detail, Finish
from storage.schema import images_table
from tests.fakes.engine import FakeEngine, answer_text


def test_what_a_request_says_of_its_model_reaches_every_call(make_harness):
    harness = make_harness(workers_count=0)
    wanted = {"model": "fake-2", "fallbackModels": ["fake-3"], "detail": "medium"}
    body = {"inputMethod": "url", "images": harness.urls(2), "prompt": "p", **wanted}
    assert harness.post(body, headers={"Prefer": "respond-async"}).status_code == 202
    harness.drain()
    [call] = harness.engine.calls
    assert (call.model, call.fallback_models, call.detail, call.waited) == ("fake-2", ("fake-3",), Detail.MEDIUM, False)


def test_a_call_whose_caller_waits_says_so(harness):
    harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"})
    assert [(call.model, call.waited) for call in harness.engine.calls] == [("fake-1", True)]


def test_a_model_that_is_not_allowed_is_refused_at_the_door(harness):
    answer = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p", "model": "fake-9"})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "invalid_model")
    assert "fake-2" in answer.json["error"]
    assert harness.count_rows("jobs") == 0


def test_a_job_shows_what_its_calls_used_and_cost_and_which_versions_answered(make_harness):
    def script(call, number):
        return Answer(
            finish=Finish.COMPLETE, text="t", input_tokens=100, output_tokens=7, nanodollars=1_500_000, model_version=f"v{number}"
        )

    harness = make_harness(engine=FakeEngine(script=script), MERGED_PER_CALL="1", workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(2), "prompt": "p"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json["id"]
    harness.drain()
    usage = harness.get(f"/api/v1/jobs/{job}").json["usage"]
    assert usage.pop("modelVersion") in {"v1, v2", "v2, v1"}
    assert usage == {
        "credits": 12,
        "modelCalls": 2,
        "inputTokens": 200,
        "outputTokens": 14,
        "cacheHits": 0,
        "money": 0.003,
        "moneyByTier": {"standard": 0.003, "economy": 0.0},
    }


class BadKey:
    """An engine whose key is wrong until `mended`, behind limits that go by a clock of their own."""

    def __init__(self) -> None:
        self.mended = False
        self.now = 1000.0
        self.inner = FakeEngine(script=lambda _call, _number: None if self.mended else BAD_KEY)
        limiter = LocalLimiter(concurrency=10, clock=lambda: self.now)
        models = {name: Model(name=name) for name in ("fake-1", "fake-2")}
        self.engine = GovernedEngine(self.inner, limiter=limiter, models=models, pause=lambda _seconds: None)


BAD_KEY = ModelUnavailable("HTTP 400", retry_after=30, notice="The key is wrong.", cause=Cause.ACCOUNT)


def start(harness) -> str:
    body = {"inputMethod": "url", "images": harness.urls(4), "prompt": "p"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json["id"]
    harness.drain()
    return f"/api/v1/jobs/{job}"


def test_with_a_bad_key_the_calls_stop_the_job_says_so_and_it_goes_on_when_the_key_is_mended(make_harness):
    bad = BadKey()
    harness = make_harness(engine=bad.engine, MERGED_PER_CALL="1", workers_count=0)
    job = start(harness)
    assert len(bad.inner.calls) == 1
    shown = harness.get(job).json
    assert (shown["status"], shown["warnings"]) == ("running", ["The key is wrong."])
    bad.mended = True
    bad.now += 31_000
    harness.skip_waits()
    harness.drain()
    assert harness.get(job).json["status"] == "succeeded"


def test_with_a_bad_key_a_job_fails_only_at_its_deadline(make_harness):
    harness = make_harness(engine=BadKey().engine, workers_count=0)
    job = start(harness)
    harness.make_overdue()
    harness.supervisor.tick()
    harness.drain()
    shown = harness.get(job).json
    assert (shown["status"], shown["error"]["code"], shown["warnings"]) == ("failed", "deadline_exceeded", ["The key is wrong."])


def test_a_job_shows_that_a_fallback_answered(make_harness):
    gone = ModelUnavailable("HTTP 404", retry_after=30, notice="Gone.", cause=Cause.MODEL)
    inner = FakeEngine(script=lambda call, _number: gone if call.model == "fake-1" else None)
    models = {name: Model(name=name, price_in=1.0) for name in ("fake-1", "fake-2")}
    engine = GovernedEngine(inner, limiter=LocalLimiter(concurrency=10), models=models, pause=lambda _seconds: None)
    harness = make_harness(engine=engine, workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(1), "prompt": "p", "fallbackModels": ["fake-2"]}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json["id"]
    harness.drain()
    usage = harness.get(f"/api/v1/jobs/{job}").json["usage"]
    assert (usage["modelVersion"], usage["money"]) == ("fake-2.0", 0.00001)


@pytest.mark.parametrize("fields", [{}, {"granularity": "perImage"}])
def test_an_image_that_the_model_was_not_shown_as_it_was_is_noted(make_harness, fields):
    def script(call, _number):
        text = answer_text(call)
        return Answer(finish=Finish.COMPLETE, text=text, reencoded=frozenset({call.pictures[1].number}))

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(3), "prompt": "p", **fields}
    harness.post(body, headers={"Prefer": "respond-async"})
    harness.drain()
    with harness.database.read() as connection:
        notes = connection.execute(select(images_table.c.note).order_by(images_table.c.index)).scalars().all()
    assert notes == [None, "reencoded", None]


def test_what_an_image_s_answer_leaves_out_is_noted_on_it_and_said_once_of_its_job(make_harness):
    pages = b"img#several_pages: 3 pages, the first was read"
    blank = b"img#blank: every pixel has the same colour"

    def script(call, _number):
        numbers = [picture.number for picture in call.pictures]
        return Answer(
            finish=Finish.COMPLETE,
            text=answer_text(call),
            reencoded=frozenset(numbers[:1]),
            notes={numbers[1]: "script_not_read: doubtful"},
        )

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    images = [base64.b64encode(data).decode() for data in (pages, pages, blank)]
    body = {"inputMethod": "base64", "images": images, "prompt": "p"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json["id"]
    harness.drain()
    items = harness.get(f"/api/v1/jobs/{job}/items").json["items"]
    assert [item["note"] for item in items] == [
        "several_pages: 3 pages, the first was read; reencoded",
        "several_pages: 3 pages, the first was read; script_not_read: doubtful",
        "blank: every pixel has the same colour",
    ]
    codes = (NoteCode.SEVERAL_PAGES, NoteCode.BLANK, NoteCode.SCRIPT_NOT_READ)
    assert harness.get(f"/api/v1/jobs/{job}").json["warnings"] == [WARNINGS[code] for code in codes]
