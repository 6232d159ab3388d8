"""The last chunk to close brings the job to its end, whoever closes it and however many close at once."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import update

from pipeline.asking.ask import ChunkOutcome
from pipeline.finalize import Verdict
from pipeline.stage import StagedChunk
from pipeline.types import Failure, ItemCode, JobStatus, Reply
from storage import schema
from storage.job import chunks, closing
from storage.queue.steps import LostLease
from tests.rows import at_once, claimed, extract_lease, job_row, new_account, new_job, step_ids, step_row, stolen


@pytest.fixture
def account(database):
    return new_account(database)


def answer(database, lease):
    outcome = ChunkOutcome(replies=(Reply(indexes=(lease.part,), text="", result="r"),))
    with database.write() as connection:
        return chunks.record_outcome(connection, lease, outcome, last=True)


def give_up(database, lease):
    with database.write() as connection:
        return chunks.record_dead(connection, lease, "d")


def stage_nothing(database, lease):
    failures = [Failure(index=lease.part, code=ItemCode.IMAGE_CORRUPT, detail="d")]
    with database.write() as connection:
        return chunks.record_staged(connection, lease, key=None, chunk=StagedChunk(failures=failures))


def end_overdue(database, job):
    with database.write() as connection:
        return closing.close_overdue(connection, job)


def test_two_chunks_closed_at_once_give_exactly_one_finalize_step(database, account):
    for _ in range(8):
        job = new_job(database, account, images=2)
        leases = [extract_lease(database, job, part) for part in (0, 1)]
        follow = at_once(*(partial(answer, database, lease) for lease in leases))
        finalize = step_ids(database, job, "finalize")
        assert sorted(follow) == [[], finalize]
        assert len(finalize) == 1
        assert job_row(database, job).status == "finalizing"


def test_a_finalize_step_that_lost_its_lease_does_not_end_the_job(database, account):
    job = new_job(database, account, images=1)
    answer(database, extract_lease(database, job, 0))
    lost = claimed(database, step_ids(database, job, "finalize")[0])
    successor = stolen(database, lost)
    verdict = Verdict(status=JobStatus.SUCCEEDED, result="r", error=None)
    with pytest.raises(LostLease), database.write() as connection:
        closing.finish_job(connection, lost, verdict)
    assert job_row(database, job).status == "finalizing"
    with database.write() as connection:
        closing.finish_job(connection, successor, verdict)
    assert job_row(database, job).status == "succeeded"


@pytest.mark.parametrize(("round_", "ends"), [(1, True), (2, False)])
def test_only_a_job_in_its_first_round_ends_because_its_model_cannot_be_asked(database, account, round_, ends):
    job = new_job(database, account, images=1)
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(round=round_))
        assert closing.close_unavailable(connection, job, "no key") is ends
    assert (job_row(database, job).status == "failed") is ends


def test_chunks_that_close_in_different_ways_at_once_give_one_finalize_step_too(database, account):
    for _ in range(4):
        job = new_job(database, account, images=3)
        answered, dead = (extract_lease(database, job, part) for part in (0, 1))
        bad = claimed(database, step_ids(database, job)[2])
        follow = at_once(
            partial(answer, database, answered), partial(give_up, database, dead), partial(stage_nothing, database, bad)
        )
        assert sorted(follow) == [[], [], step_ids(database, job, "finalize")]


def test_while_a_chunk_is_open_nothing_is_finalized(database, account):
    job = new_job(database, account, images=3)
    leases = [extract_lease(database, job, part) for part in range(3)]
    assert answer(database, leases[2]) == []
    assert answer(database, leases[0]) == []
    assert job_row(database, job).status == "running"
    (finalize,) = answer(database, leases[1])
    assert step_row(database, finalize).state == "ready"


def test_one_worker_that_closes_a_chunk_twice_at_once_closes_it_once(database, account):
    job = new_job(database, account, images=1)
    lease = extract_lease(database, job, 0)
    given = at_once(*[partial(answer, database, lease)] * 3)
    assert [value for value in given if not isinstance(value, LostLease)] == [step_ids(database, job, "finalize")]


def test_a_deadline_and_the_last_chunk_at_once_give_one_end(database, account):
    for _ in range(6):
        job = new_job(database, account, images=1)
        lease = extract_lease(database, job, 0)
        ended, _ = at_once(partial(end_overdue, database, job), partial(answer, database, lease))
        (cleanup,) = [step for step in step_ids(database, job, "cleanup") if step_row(database, step).part == 0]
        assert ended == [cleanup]
        assert {step_row(database, step).state for step in step_ids(database, job, "finalize")} <= {"cancelled"}
        assert job_row(database, job).status in ("failed", "succeeded")
        assert job_row(database, job).finished_at is not None
