"""A request's images are put while its job is written, and the job is there only if they are."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from api import putting
from pipeline.errors import Transient
from tests.harness import b64, running

BODY = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path, postgres_server):
    with postgres_server.database() as url, running(tmp_path, workers_count=0, DATABASE_URL=url) as made:
        yield made


def slow(house: Any, until: threading.Event) -> list[str]:
    """Makes each put wait. Returns the names of the threads that put."""
    names: list[str] = []
    put = house.scratch.put

    def waiting(key: str, body: Any) -> None:
        names.append(threading.current_thread().name)
        until.wait(20)
        put(key, body)

    house.scratch.put = waiting
    return names


def test_a_put_that_lasts_is_waited_for_without_a_transaction_and_the_job_is_made_once(house, monkeypatch):
    go_on = threading.Event()
    names = slow(house, go_on)
    end = putting.Putting.end

    def freed(self: putting.Putting) -> None:
        with house.database.engine.connect():  # nothing of the job is left in the database
            assert house.count_rows("jobs") == 0
        assert house.database.engine.pool.checkedout() == 0
        go_on.set()
        end(self)

    monkeypatch.setattr(putting.Putting, "end", freed)
    job = house.post(BODY, headers=ASYNC).json["id"]
    assert names == ["putting"]
    assert house.count_rows("jobs") == 1
    house.drain()
    assert house.get(f"/api/v1/jobs/{job}").json["status"] == "succeeded"
    assert [kind for kind, _ in house.ledger(job)] == ["reserve", "charge", "release"]


def test_a_put_that_fails_leaves_no_job_and_no_object(house):
    def failing(_key: str, _body: Any) -> None:
        raise Transient("S3 is away")

    house.scratch.put = failing
    refused = house.post(BODY, headers=ASYNC)
    assert refused.status_code == 503
    assert house.count_rows("jobs") == 0
    assert house.balance() == (100_000, 0, 0)


def test_a_refusal_waits_for_the_put_and_deletes_what_it_has_put(tmp_path, postgres_server):
    with postgres_server.database() as url, running(tmp_path, workers_count=0, DATABASE_URL=url, MAX_SCRATCH_BYTES="1") as house:
        refused = house.post(BODY, headers=ASYNC)
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (429, "scratch_full")
        assert house.scratch.objects == {}
        assert house.balance() == (100_000, 0, 0)


def test_a_request_with_an_idempotency_key_is_put_before_its_account_is_locked(house):
    at_once = threading.Event()
    at_once.set()
    names = slow(house, at_once)
    assert house.post(BODY, headers={**ASYNC, "Idempotency-Key": "k"}).status_code == 202
    assert len(names) == 1
    assert "putting" not in names
    house.drain()
