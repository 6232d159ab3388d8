"""A request that somebody holds open ends soon if its model can't be asked; a job that nobody holds open waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from api.held import HeldJob
from api.waiting import wait_for_end
from pipeline.ports import WAITS, Cause, ModelUnavailable
from tests.component.api.test_waiting import ASYNC, BODY, the_job, wait_until
from tests.fakes.engine import FakeEngine
from tests.harness import CREDITS, Harness, b64
from workers.run import run_step

KEY = {"Idempotency-Key": "0b9b7d1e-1c1d-4b1f-8f0e-1f2d3c4b5a69"}
SAID = "The model can't be asked (HTTP 401 no). Set OPENAI_API_KEY to a key that the server accepts."
FAILED = {"error": f"Failed to extract image data: {SAID}"}


def refused(cause: Cause = Cause.ACCOUNT, seconds: float = 30) -> ModelUnavailable:
    return ModelUnavailable("HTTP 401", retry_after=seconds, notice=f"{SAID}{WAITS}", cause=cause)


def refusing(*causes: Cause, after: int = 0) -> FakeEngine:
    """An engine that answers `after` calls, then refuses with each cause, and with the last one for ever."""

    def script(_call: object, number: int) -> ModelUnavailable | None:
        return refused(causes[min(number - after, len(causes)) - 1], 0) if number > after else None

    return FakeEngine(script=script)


@contextmanager
def drained(harness: Harness) -> Iterator[None]:
    """Runs steps again and again, as the supervisor and the workers do."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.01):
            harness.skip_waits()
            harness.supervisor.ring()
            while not harness.signals.rung.empty():
                run_step(harness.work, harness.signals.rung.get())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("cause", [Cause.ACCOUNT, Cause.ADDRESS, Cause.MODEL])
def test_with_a_cause_that_needs_a_person_the_request_fails_soon_and_costs_nothing(make_harness, cause):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused(cause)))
    answer = harness.post(BODY)
    assert (answer.status_code, answer.json, answer.headers["X-Error-Code"]) == (500, FAILED, "model_unavailable")
    assert harness.balance() == (CREDITS, 0, 0)
    job = harness.get(f"/api/v1/jobs/{the_job(harness)}").json
    assert (job["status"], job["error"]) == ("failed", {"code": "model_unavailable", "message": SAID})
    assert job["warnings"] == [f"{SAID}{WAITS}"]


def test_a_server_that_is_not_there_ends_the_request_when_it_stays_away(make_harness):
    harness = make_harness(engine=refusing(Cause.AWAY), workers_count=0)
    with drained(harness):
        answer = harness.post(BODY, headers={"Prefer": "wait=60"})
    assert (answer.status_code, answer.json) == (500, FAILED)
    assert harness.balance() == (CREDITS, 0, 0)


def test_a_server_that_is_away_for_a_moment_ends_no_request(make_harness):
    engine = FakeEngine(script=lambda _call, number: refused(Cause.AWAY, 0) if number < 4 else None)
    harness = make_harness(engine=engine, workers_count=0, held_seconds=60)
    with drained(harness):
        answer = harness.post(BODY)
    assert (answer.status_code, len(harness.engine.calls)) == (200, 4)


def test_one_call_that_finds_the_server_away_is_not_enough(make_harness):
    harness = make_harness(engine=refusing(Cause.AWAY), workers_count=0, held_seconds=0.0)
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(harness.post, BODY, headers={"Prefer": "wait=2"})
        wait_until(lambda: not harness.signals.rung.empty())  # it comes after the commit
        harness.engine._script = lambda _call, number: refused(Cause.AWAY, 600)
        harness.drain()
        assert posted.result().status_code == 202
    harness.engine._script = lambda _call, _number: None
    harness.skip_waits()
    harness.drain()


def test_an_overload_ends_no_request(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused(Cause.OVERLOADED)))
    answer = harness.post(BODY, headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    harness.engine._script = lambda *_: None
    harness.skip_waits()
    harness.drain()


def test_a_job_that_nobody_holds_open_waits(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused()), workers_count=0)
    place = harness.post(BODY, headers=ASYNC).headers["Location"]
    harness.drain()
    assert harness.get(f"{place}?wait=1").json["status"] == "running"
    again = harness.post(BODY, headers={**ASYNC, **KEY})
    assert again.status_code == 202
    harness.engine._script = lambda *_: None
    harness.skip_waits()
    harness.drain()
    assert harness.get(place).json["status"] == "succeeded"


def test_all_who_hold_the_same_job_open_get_the_same_answer_and_a_later_one_too(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused()), workers_count=0)
    with ThreadPoolExecutor(3) as pool:
        posted = [pool.submit(harness.post, BODY, headers=KEY) for _ in range(3)]
        wait_until(lambda: not harness.signals.rung.empty())  # it comes after the commit
        harness.drain()
        assert [answer.result().json for answer in posted] == [FAILED] * 3
    harness.drain()
    again = harness.post(BODY, headers=KEY)
    assert (again.status_code, again.json, again.headers["Idempotent-Replayed"]) == (500, FAILED, "true")
    assert harness.balance() == (CREDITS, 0, 0)


def test_a_request_that_is_sent_again_ends_no_job_that_was_made_to_run_by_itself(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused()), workers_count=0)
    harness.post(BODY, headers={**KEY, **ASYNC})
    harness.drain()
    assert harness.post(BODY, headers={**KEY, "Prefer": "wait=1"}).status_code == 202
    harness.engine._script = lambda *_: None
    harness.skip_waits()
    harness.drain()


def test_what_was_answered_before_is_kept_and_paid_for_and_the_rest_says_why_it_is_missing(make_harness):
    harness = make_harness(engine=refusing(Cause.ACCOUNT, after=1), workers_count=0)
    body = {**BODY, "imagesPerCall": 1, "granularity": "perImage", "images": [b64(b"img a"), b64(b"img b"), b64(b"img c")]}
    with drained(harness):
        answer = harness.post(body)
    assert answer.status_code == 200
    assert [error["code"] for error in answer.json["errors"]] == ["model_unavailable"] * 2
    assert {error["message"] for error in answer.json["errors"]} == {SAID}
    assert harness.balance() == (CREDITS - 11, 0, 11)


def test_who_wants_all_or_nothing_gets_nothing_and_pays_nothing(make_harness):
    harness = make_harness(engine=refusing(Cause.ACCOUNT, after=1), workers_count=0)
    with drained(harness):
        answer = harness.post({**BODY, "imagesPerCall": 1, "onError": "fail"})
    assert answer.status_code == 500
    assert SAID in answer.json["error"]
    assert harness.balance() == (CREDITS, 0, 0)


def test_a_failed_job_can_be_tried_again_when_the_key_is_mended(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused()))
    assert harness.post({"inputMethod": "url", "images": harness.urls(2), "prompt": "p"}).status_code == 500
    place = f"/api/v1/jobs/{the_job(harness)}"
    assert harness.ask("POST", f"{place}/retry").status_code == 202
    harness.drain()
    assert harness.get(f"{place}?wait=1").json["status"] == "running"  # nobody holds the second round open
    harness.engine._script = lambda *_: None
    harness.skip_waits()
    harness.drain()
    assert harness.get(f"{place}?wait=60").json["status"] == "succeeded"
    assert harness.balance() == (CREDITS - 12, 0, 12)


def test_who_hung_up_ends_no_job(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused()), workers_count=0)
    harness.post(BODY, headers={"Prefer": "wait=0"})
    harness.drain()
    job = the_job(harness)
    assert not wait_for_end(harness.web, job, 60, gone=lambda: True, held=HeldJob(harness.web, job))
    assert harness.get(f"/api/v1/jobs/{job}").json["status"] == "running"
    assert wait_for_end(harness.web, job, 60, gone=lambda: False, held=HeldJob(harness.web, job))
    assert harness.get(f"/api/v1/jobs/{job}").json["status"] == "failed"
    harness.drain()
