"""The wait for an answer, the 202 when it is not there in time, and following the job afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection, select

from api.app import create_app
from api.waiting import wait_for_end, waiting_place
from pipeline.job_object import links_json
from pipeline.types import JobStatus
from storage.job.views import status_of
from storage.queue.ringing import Ring
from storage.redis.answers import AnswerTo, Success
from storage.redis.watching import Watch
from storage.schema import jobs_table
from tests.fakes.signals import MemorySignals
from tests.harness import Harness, b64

ASYNC = {"Prefer": "respond-async"}
BODY = {"inputMethod": "base64", "images": [b64(b"img one"), b64(b"img two")], "prompt": "p"}


def wait_until(condition: Any) -> None:
    """Looks until it is so; the test's own time-out ends it otherwise."""
    pause = Event()
    while not condition():
        pause.wait(0.01)


def the_job(harness: Harness) -> str:
    with harness.database.read() as connection:
        return connection.execute(select(jobs_table.c.id)).scalar_one()


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        (None, None),
        ("wait=60", "wait=60"),
        ("Wait=60", "wait=60"),
        ('wait="60"', "wait=60"),
        ("return=minimal, wait=60", "wait=60"),
        ("wait=301", None),
        ("wait=999999", None),
        ("wait=soon", None),
        ("wait=-1", None),
        ("wait=" + "9" * 50, None),
        ("", None),
        ("handling=lenient; x", None),
        ("not-respond-async", None),
        ("respond-asynchronously", None),
    ],
)
def test_a_job_that_ends_in_time_is_a_200_and_says_which_preference_was_kept(harness, prefer, applied):
    answer = harness.post(BODY, headers={"Prefer": prefer} if prefer is not None else {})
    assert answer.status_code == 200
    assert answer.headers.get("Preference-Applied") == applied


@pytest.mark.parametrize("prefer", ["respond-async", "Respond-Async", "respond-async, wait=10", "wait=10; respond-async"])
def test_who_does_not_want_to_wait_gets_a_202_at_once(make_harness, prefer):
    harness = make_harness(workers_count=0)
    answer = harness.post(BODY, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=1"])
def test_a_job_that_does_not_end_in_time_is_a_202_with_the_job_as_its_body(make_harness, prefer):
    harness = make_harness(workers_count=0)
    answer = harness.post(BODY, headers={"Prefer": prefer})
    job = the_job(harness)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/jobs/{job}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Preference-Applied"] == prefer
    body = answer.json
    assert datetime.fromisoformat(body.pop("createdAt")).tzinfo is not None
    assert body == {
        "id": job,
        "status": "queued",
        "tier": "standard",
        "progress": 0.0,
        "counts": {"total": 2, "succeeded": 0, "failed": 0},
        "usage": {
            "credits": 0,
            "modelCalls": 0,
            "inputTokens": 0,
            "outputTokens": 0,
            "cacheHits": 0,
            "money": 0.0,
            "moneyByTier": {"standard": 0.0, "economy": 0.0},
            "modelVersion": None,
        },
        "startedAt": None,
        "finishedAt": None,
        "expiresAt": None,
        "inputsExpireAt": None,
        "error": None,
        "warnings": [],
        "metadata": None,
        "name": None,
        "batch": None,
        "links": links_json(job),
    }


def test_the_wait_is_no_longer_than_sync_wait(make_harness):
    harness = make_harness(workers_count=0, SYNC_WAIT="0")
    answer = harness.post(BODY, headers={"Prefer": "wait=60"})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_a_wait_ends_with_a_202_when_the_process_is_stopping_and_the_job_goes_on(make_harness):
    harness = make_harness(workers_count=0, MAX_WAITERS="1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(harness.post, BODY)
        wait_until(lambda: harness.count_rows("jobs") == 1)
        harness.stopping = True
        answer = waiting.result()
    assert answer.status_code == 202
    harness.stopping = False
    harness.drain()
    assert harness.get(answer.headers["Location"]).json["status"] == "succeeded"
    assert harness.get(answer.headers["Location"] + "?wait=1").status_code == 200  # the place was given back


def test_all_who_wait_for_a_job_are_woken_by_its_end(make_harness):
    harness = make_harness(workers_count=0)
    with ThreadPoolExecutor(3) as pool:
        posted = pool.submit(harness.post, BODY)
        wait_until(lambda: not harness.signals.rung.empty())
        following = [pool.submit(harness.get, f"/api/v1/jobs/{the_job(harness)}?wait=200") for _ in range(2)]
        harness.drain()
        assert posted.result().json["results"] == "1=img one\n2=img two"
        assert [future.result().json["status"] for future in following] == ["succeeded"] * 2


def test_an_open_job_asks_to_be_looked_at_again_and_an_ended_one_does_not(make_harness):
    harness = make_harness(workers_count=0)
    place = harness.post(BODY, headers=ASYNC).headers["Location"]
    assert int(harness.get(place).headers["Retry-After"]) >= 1
    harness.drain()
    ended = harness.get(f"{place}?wait=0")
    assert "Retry-After" not in ended.headers
    assert ended.json["usage"] == {
        "credits": 12,
        "modelCalls": 1,
        "inputTokens": 10,
        "outputTokens": 2,
        "cacheHits": 0,
        "money": 0.0,
        "moneyByTier": {"standard": 0.0, "economy": 0.0},
        "modelVersion": "fake-1.0",
    }
    assert ended.json["createdAt"] <= ended.json["startedAt"] <= ended.json["finishedAt"] < ended.json["expiresAt"]


@pytest.mark.parametrize("wait", ["1.5", "-1", "soon", "1e3", "%D9%A3", "%20"])
def test_a_wait_that_is_no_whole_number_is_a_400_with_its_code(harness, wait):
    place = harness.post(BODY, headers=ASYNC).headers["Location"]
    refused = harness.get(f"{place}?wait={wait}")
    assert refused.status_code == 400
    assert refused.json == {"error": "wait must be a whole number of seconds.", "code": "invalid_wait"}
    assert refused.headers["X-Error-Code"] == "invalid_wait"


@pytest.mark.parametrize("wait", ["", "0", "5", "9" * 400])
def test_an_ended_job_is_answered_at_once_whatever_the_wait(harness, wait):
    harness.post(BODY)
    assert harness.get(f"/api/v1/jobs/{the_job(harness)}?wait={wait}&other=1").json["status"] == "succeeded"


def test_following_a_job_needs_a_waiting_place_only_with_wait(make_harness):
    harness = make_harness(workers_count=0, MAX_WAITERS="1")
    place = harness.post(BODY, headers=ASYNC).headers["Location"]
    with harness.web.waiting_places.held("acc_other"):
        assert harness.get(place).status_code == 200
        refused = harness.get(f"{place}?wait=5")
    assert (refused.status_code, refused.json["code"]) == (429, "no_waiting_place")
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["", "?wait=5", "/results"])
def test_another_account_s_job_and_a_missing_one_are_the_same_404(harness, path):
    harness.post(BODY)
    _, stranger = harness.new_key()
    answers = [
        harness.get(f"/api/v1/jobs/{the_job(harness)}{path}", key=stranger),
        harness.get(f"/api/v1/jobs/job_000000000000000000000000{path}", key=stranger),
        harness.get(f"/api/v1/jobs/%00'--{path}", key=stranger),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert {answer.data for answer in answers} == {b'{"error":"There is no such job.","code":"not_found"}'}
    assert {answer.headers["X-Error-Code"] for answer in answers} == {"not_found"}


@pytest.mark.parametrize("path", ["", "?wait=5", "/results"])
def test_a_job_is_shown_to_nobody_without_a_key(harness, path):
    harness.post(BODY)
    refused = harness.client.get(f"/api/v1/jobs/{the_job(harness)}{path}")
    assert refused.status_code == 401
    assert refused.json == {"error": "Invalid or missing Authorization header", "code": "unauthorized"}


def test_another_key_of_the_same_account_sees_the_job(harness):
    from storage.account.accounts import create_key

    harness.post(BODY)
    with harness.database.write() as connection:
        second = create_key(connection, account=harness.account, name="second", secret_key=b"secret")
    assert harness.get(f"/api/v1/jobs/{the_job(harness)}", key=second).status_code == 200


def test_results_of_an_open_job_are_a_409_and_then_the_same_as_the_wait_would_have_given(make_harness):
    harness = make_harness(workers_count=0)
    body = {**BODY, "images": [*BODY["images"], b64(b"no picture")]}
    links = harness.post(body, headers=ASYNC).json["links"]
    early = harness.get(links["results"])
    assert (early.status_code, early.json["code"]) == (409, "not_finished")
    harness.drain()
    results = harness.get(links["results"]).json
    assert results == {
        "results": "1=img one\n2=img two",
        "prompt": "p",
        "imageCount": 2,
        "creditUsage": 12,
        "errors": [{"index": 2, "code": "unsupported_format", "message": "This is not an image."}],
    }
    assert harness.get(links["self"]).json["status"] == "partial"


def test_the_wait_for_a_job_that_lasts_ends_when_the_caller_hangs_up_and_its_place_is_free(make_harness):
    house = make_harness(workers_count=0)
    job = house.post(BODY, headers=ASYNC).json["id"]
    asked: list[bool] = []

    def gone() -> bool:
        asked.append(True)
        return True

    free = house.web.waiting_places.free
    with waiting_place(house.web, house.account, needed=True):
        assert house.web.waiting_places.free == free - 1
        assert not wait_for_end(house.web, job, 1.0, gone)
    assert asked == [True]
    assert house.web.waiting_places.free == free


def test_a_watch_that_began_before_the_job_was_announced_misses_no_end_and_the_job_is_read_once(make_harness):
    house = make_harness(workers_count=0)
    job = house.post(BODY, headers=ASYNC).json["id"]
    reads: list[str] = []

    def read(connection: Connection, of: str) -> JobStatus | None:
        reads.append(of)
        return status_of(connection, of)

    with house.signals.watch(job, end_only=True) as watch:
        house.drain()
        assert wait_for_end(house.web, job, 60, watched=watch, read=read)
    assert reads == [job]


def test_the_answer_that_a_worker_sends_is_the_answer_and_sql_is_not_read(make_harness):
    house = make_harness(workers_count=0)
    told = Success(images=2, credits=12, prompt="p", result="told")
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(house.post, BODY)
        wait_until(lambda: not house.signals.rung.empty())
        house.signals.tell(the_job(house), answer=AnswerTo("", told))
        answer = asked.result(20)
    assert (answer.status_code, answer.json) == (200, {"results": "told", "prompt": "p", "imageCount": 2, "creditUsage": 12})
    house.drain()


class OrderedSignals(MemorySignals):
    """Notes what is done, and runs the steps as soon as they are announced."""

    def __init__(self, house: Harness) -> None:
        super().__init__()
        self.done: list[str] = []
        self._house = house

    def watch(self, job: str, *, end_only: bool = False) -> AbstractContextManager[Watch]:
        self.done.append("watch")
        return super().watch(job, end_only=end_only)

    def ring(self, rings: Iterable[Ring]) -> None:
        self.done.append("ring")
        self._house.signals.ring(rings)
        self._house.drain()
        self.tell(the_job(self._house))


def test_a_job_that_ends_as_soon_as_it_is_announced_is_answered(make_harness):
    house = make_harness(workers_count=0)
    signals = OrderedSignals(house)
    client = create_app(replace(house.web, signals=signals)).test_client()
    answer = client.post("/api/v1/extract-image", json=BODY, headers={"Authorization": f"Bearer {house.key}"})
    assert (answer.status_code, answer.json["imageCount"]) == (200, 2)
    assert signals.done == ["watch", "ring"]
