"""What a thread has staged goes with it to the chunk's extract step, and no further."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import IO

import pytest
from sqlalchemy import update

from storage.schema import jobs_table
from tests.harness import running
from tests.rows import claimed, eventually, job_row, step_ids, stolen
from workers.run import ClaimedStep, run_claimed, run_lease
from workers.staging_turns import StagingTurns


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0) as made:
        yield made


@pytest.fixture
def put(house):
    """The files that were put to scratch, by key."""
    files: dict[str, IO[bytes]] = {}
    real = house.scratch.put

    def watched(key: str, body: IO[bytes]) -> None:
        real(key, body)
        files[key] = body

    house.scratch.put = watched
    return files


def accepted(house):
    body = {"inputMethod": "url", "images": house.urls(3), "prompt": "p"}
    return house.post(body, headers={"Prefer": "respond-async"}).json["id"]


def stage_lease(house, job):
    [step] = step_ids(house.database, job)
    return claimed(house.database, step)


def test_a_chunk_waits_for_its_account_s_turn_to_be_staged_unless_a_caller_waits_for_it(house):
    house.work = replace(house.work, staging_turns=StagingTurns(1))
    job = accepted(house)
    lease = stage_lease(house, job)
    with house.work.staging_turns.turn(lease.account):
        staging = threading.Thread(target=go_on, args=(house, [ClaimedStep(lease=lease)]), daemon=True)
        staging.start()
        eventually(lambda: house.work.staging_turns.waiting(lease.account) == 1)
        waited = accepted(house)
        with house.database.write() as connection:
            connection.execute(update(jobs_table).where(jobs_table.c.id == waited).values(waited=True))
        go_on(house, [ClaimedStep(lease=stage_lease(house, waited))])
        assert job_row(house.database, waited).status == "succeeded"
        assert house.work.staging_turns.waiting(lease.account) == 1
    staging.join(20)
    house.drain()
    assert job_row(house.database, job).status == "succeeded"


def go_on(house, turns):
    for turn in turns:
        go_on(house, run_claimed(house.work, turn))


def test_the_next_step_of_the_thread_has_it_in_hand_and_then_it_is_closed(house, put, opened):
    job = accepted(house)
    [extract] = run_lease(house.work, stage_lease(house, job))
    [(key, file)] = put.items()
    assert extract.in_hand is not None
    assert (extract.lease.kind, extract.in_hand.key, file.closed) == ("extract", key, False)
    [finalize] = run_claimed(house.work, extract)
    assert (finalize.lease.kind, finalize.in_hand, file.closed) == ("finalize", None, True)
    go_on(house, [finalize])
    assert opened == []


def test_a_thread_that_does_not_go_on_closes_it_and_another_thread_fetches_it(house, put, opened):
    job = accepted(house)
    assert run_lease(house.work.for_one_step(), stage_lease(house, job)) == []
    [(key, file)] = put.items()
    assert file.closed
    house.drain()
    assert opened == [key]
    assert job_row(house.database, job).status == "succeeded"


def test_it_is_closed_where_the_lease_was_lost(house, put):
    job = accepted(house)
    lease = stage_lease(house, job)
    real = house.scratch.put

    def put_and_be_overtaken(key: str, body: IO[bytes]) -> None:
        real(key, body)
        house.scratch.put = real
        stolen(house.database, lease)

    house.scratch.put = put_and_be_overtaken
    assert run_lease(house.work, lease) == []
    [file] = put.values()
    assert file.closed


def test_a_thread_that_goes_on_with_something_else_closes_it(house, put, opened):
    [extract] = run_lease(house.work, stage_lease(house, accepted(house)))
    [(key, file)] = put.items()
    turns = run_claimed(house.work, ClaimedStep(lease=stage_lease(house, accepted(house)), in_hand=extract.in_hand))
    assert file.closed
    go_on(house, [*turns, ClaimedStep(lease=extract.lease)])
    assert opened == [key]
