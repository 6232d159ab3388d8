"""A job that is cancelled ends at once, with what it has, and nothing of it changes any more."""

from __future__ import annotations

import io
import threading

import pytest

from pipeline.finalize import Verdict
from pipeline.types import JobStatus
from storage import schema
from storage.job import closing
from storage.job.locked import lock_job
from tests.harness import CREDITS, b64, running
from tests.rows import claimed, eventually, job_row, step_ids
from workers.run import run_step

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="1") as made:
        yield made


def accepted(house, images=3, **fields):
    body = {"inputMethod": "url", "images": house.urls(images), "prompt": "p", "granularity": "perImage", **fields}
    return house.post(body, headers=ASYNC).json["id"]


def cancel(house, job, **options):
    headers = {"Authorization": f"Bearer {options.get('key', house.key)}"}
    return house.client.post(f"/api/v1/jobs/{job}/cancel", headers=headers)


def run_one(house):
    """Stages and extracts one chunk."""
    house.supervisor.ring()
    run_step(house.work, house.signals.rung.get_nowait())


def test_a_job_that_has_not_begun_costs_nothing(house):
    job = accepted(house)
    answer = cancel(house, job)
    assert (answer.status_code, answer.json["status"]) == (200, "cancelled")
    assert answer.json["counts"] == {"total": 3, "succeeded": 0, "failed": 3}
    assert house.balance() == (CREDITS, 0, 0)
    house.drain()
    assert len(house.engine.calls) == 0


def test_what_was_processed_is_kept_and_paid_for(house):
    job = accepted(house)
    run_one(house)
    assert cancel(house, job).json["counts"] == {"total": 3, "succeeded": 1, "failed": 2}
    house.drain()
    results = house.get(f"/api/v1/jobs/{job}/results").json
    assert results["imageCount"] == 1
    assert [error["code"] for error in results["errors"]] == ["cancelled"] * 2
    assert house.balance() == (CREDITS - 11, 0, 11)


def test_a_call_that_is_under_way_changes_nothing_when_it_comes_back(tmp_path):
    asked, answer = threading.Event(), threading.Event()

    def slow(*_):
        asked.set()
        answer.wait()

    from tests.fakes.engine import FakeEngine

    with running(tmp_path, workers_count=1, engine=FakeEngine(script=slow)) as house:
        job = accepted(house, 1)
        asked.wait()
        assert cancel(house, job).json["status"] == "cancelled"
        ended = job_row(house.database, job)
        answer.set()
        eventually(lambda: not house.scratch.objects)
        assert job_row(house.database, job) == ended
        assert house.balance() == (CREDITS, 0, 0)


def test_what_a_worker_writes_after_the_cancel_is_deleted_when_its_lease_is_over(house):
    job = accepted(house)
    claimed(house.database, step_ids(house.database, job)[0])
    cancel(house, job)
    house.drain()
    house.scratch.put(f"{job}/late", io.BytesIO(b"x"))
    house.drain()
    assert list(house.scratch.list(job)) == [f"{job}/late"], "the worker may still write"
    house.skip_waits()
    house.drain()
    assert list(house.scratch.list(job)) == []


def test_who_waits_for_it_is_told(tmp_path):
    with running(tmp_path, workers_count=0) as house:
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.append(house.post({"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}))
        )
        waiting.start()
        eventually(lambda: house.count_rows("jobs") == 1)
        with house.database.read() as connection:
            job = connection.scalar(schema.jobs_table.select().with_only_columns(schema.jobs_table.c.id))
        cancel(house, job)
        waiting.join()
        assert (answers[0].status_code, answers[0].headers["X-Error-Code"]) == (409, "cancelled")
        assert set(answers[0].json) == {"error"}


def test_cancelling_again_changes_nothing(house):
    job = accepted(house)
    first, again = cancel(house, job), cancel(house, job)
    assert first.json == again.json
    assert [kind for kind, _ in house.ledger(job)] == ["reserve", "charge", "release"]


def test_a_job_that_has_ended_is_not_cancelled(house):
    job = accepted(house)
    house.drain()
    refused = cancel(house, job)
    assert (refused.status_code, refused.json["code"]) == (409, "already_ended")
    assert house.get(f"/api/v1/jobs/{job}").json["status"] == "succeeded"


def test_whoever_ends_an_ended_job_changes_and_charges_nothing(house):
    """Those who end a job look first whether it has ended. This holds if one of them forgets to."""
    job = accepted(house)
    house.drain()
    before = house.ledger(job), house.balance(), job_row(house.database, job)
    with house.database.write() as connection:
        verdict = Verdict(status=JobStatus.FAILED, result=None, error=("internal_error", "d"))
        assert closing.close_job(connection, lock_job(connection, job), verdict) == []
    assert (house.ledger(job), house.balance(), job_row(house.database, job)) == before


def test_somebody_else_s_job_looks_like_none(house):
    job = accepted(house)
    _, other = house.new_key()
    answers = [cancel(house, job, key=other), cancel(house, "job_nowhere")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].data == answers[1].data
    assert cancel(house, job, key="nonsense").status_code == 401
    assert house.get(f"/api/v1/jobs/{job}").json["status"] == "queued"


@pytest.mark.parametrize(("given", "seconds"), [(10, 10), (43_200, 43_200), ("600", 600), (None, 3600)])
def test_a_job_ends_by_its_own_deadline(house, given, seconds):
    row = job_row(house.database, accepted(house, deadlineSeconds=given))
    assert abs(row.deadline_at - row.created_at - seconds * 1000) < 1000


@pytest.mark.parametrize("given", [9, 43_201, 60.5, True, "soon", "", [60], "99999999999999999999"])
def test_a_deadline_that_can_not_be_is_refused(house, given):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "deadlineSeconds": given}
    refused = house.post(body)
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, "invalid_deadline_seconds")


@pytest.mark.parametrize(
    "given", ["ftp://example.com/", "https://user:word@example.com/", "http://127.0.0.1/hook", "https://a b/", 7, ["x"]]
)
def test_a_webhook_that_can_not_be_called_is_refused_at_the_door(house, given):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "webhookUrl": given}
    refused = house.post(body)
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, "invalid_webhook_url")
    assert house.count_rows("jobs") == 0
