"""The queue's rows: who may work on a step, what a lost lease may still do, and what is rung when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text, update

from pipeline.asking.ask import ChunkOutcome
from pipeline.evidence.finding import not_read
from pipeline.finalize import Verdict
from pipeline.stage import StagedChunk
from pipeline.types import Failure, ItemCode, JobStatus, Reply, StepKind
from storage import schema
from storage.job import chunks, closing, evidence
from storage.job.locked import lock_job
from storage.queue import steps
from storage.queue.steps import LostLease
from tests.rows import (
    at_once,
    claim,
    claimed,
    eventually,
    everything,
    extract_lease,
    job_row,
    new_account,
    new_job,
    now,
    ring,
    rung_now,
    set_steps,
    staged_images,
    step_ids,
    step_row,
    stolen,
)


@pytest.fixture
def account(database):
    return new_account(database)


@pytest.fixture
def job(database, account):
    return new_job(database, account)


@pytest.fixture
def step(database, job):
    (only,) = step_ids(database, job)
    return only


def reclaim(database):
    with database.write() as connection:
        return steps.reclaim_expired(connection)


# Claiming


def test_a_claim_takes_the_lease_and_raises_the_epoch(database, job, step):
    before = now(database)
    lease = claimed(database, step, owner="me", lease_ms=5_000)
    row = step_row(database, step)
    assert (lease.step, lease.job, lease.kind, lease.part, lease.epoch, lease.tries) == (step, job, "stage", 0, 1, 0)
    assert (row.state, row.owner, row.epoch) == ("leased", "me", 1)
    assert before + 5_000 <= row.lease_until <= now(database) + 5_000


def test_a_step_is_claimed_once(database, step):
    claimed(database, step)
    before = everything(database)
    assert claim(database, step) is None
    assert everything(database) == before


def test_the_first_claim_of_a_job_shows_it_as_running(database, job, step):
    assert (job_row(database, job).status, job_row(database, job).started_at) == ("queued", None)
    lease = claimed(database, step)
    running = job_row(database, job)
    assert running.status == "running"
    assert running.started_at >= running.created_at
    stolen(database, lease)
    assert job_row(database, job) == running


def test_a_message_for_a_step_that_does_not_exist_changes_nothing(database, job, step):
    before = everything(database)
    assert claim(database, step + 1000) is None
    assert everything(database) == before


@pytest.mark.parametrize("state", ["leased", "done", "split", "dead", "cancelled"])
def test_only_a_ready_step_can_be_claimed(database, step, state):
    set_steps(database, step, state=state)
    assert claim(database, step) is None
    assert step_row(database, step).state == state


def test_a_step_that_waits_for_its_time_is_not_claimed(database, step):
    set_steps(database, step, not_before=now(database) + 60_000)
    assert claim(database, step) is None
    set_steps(database, step, not_before=0)
    assert claim(database, step) is not None


def test_of_threads_that_claim_at_once_one_gets_the_lease(database, account):
    for _ in range(5):
        (step,) = step_ids(database, new_job(database, account))
        leases = at_once(*[lambda step=step: claim(database, step)] * 4)
        assert [lease.epoch for lease in leases if lease is not None] == [1]


def test_a_claim_waits_for_the_job_before_it_locks_the_step(database, job, step):
    """Whoever changes a job locks it first, and then its steps. A claim that held the step meanwhile would deadlock."""
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")

    def claim_waits() -> bool:
        if not database.many_writers:
            return True
        with database.read() as connection:
            return bool(connection.scalar(waiting))

    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            lock_job(connection, job)
            claiming = pool.submit(claim, database, step)
            eventually(claim_waits)
            steps.cancel_open(connection, job=job, round_=1)
        assert claiming.result(20) is None
    assert (step_row(database, step).state, step_row(database, step).owner) == ("cancelled", None)


def test_a_step_of_a_kind_that_only_a_newer_version_knows_is_left_to_its_workers(database, step):
    set_steps(database, kind="unheard")
    before = step_row(database, step)
    assert claim(database, step) is None
    assert step_row(database, step) == before


@pytest.mark.parametrize("more", [{"waited": False}, {"waited": True}, {"tier": "economy"}])
def test_a_step_that_is_added_with_its_lease_is_as_if_it_was_claimed(database, account, more):
    rows = []
    for at_once_ in (True, False):
        job = new_job(database, account)
        with database.write() as connection:
            connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(**more))
        first = claimed(database, step_ids(database, job)[0])
        how = {"owner": "me", "lease_ms": 5_000}
        before = now(database)
        with database.write() as connection:
            if at_once_:
                lease = steps.add_claimed(connection, first, kind=StepKind.CLEANUP, **how)
            else:
                [added] = steps.add(connection, job=job, round_=1, kind=StepKind.CLEANUP)
                lease = steps.claim(connection, added, after=first, **how)
        row = step_row(database, lease.step)._mapping
        assert before + 5_000 <= row["lease_until"] <= now(database) + 5_000
        own = {"id": 0, "job": "", "added_at": 0, "lease_until": 0}
        rows.append(({**row, **own}, replace(lease, step=0, job="")))
    assert rows[0] == rows[1]


def test_each_claim_has_an_epoch_of_its_own(database, step):
    epochs = []
    for _ in range(3):
        lease = claimed(database, step)
        epochs.append(lease.epoch)
        with database.write() as connection:
            steps.hand_back(connection, lease, delay_ms=0, counts=False)
    assert epochs == [1, 2, 3]


# Fencing


def stage_writes(lease):
    """Everything that a worker may write of a stage step."""
    staged = StagedChunk(staged=staged_images(lease.part, 1))
    failed = StagedChunk(failures=[Failure(index=lease.part, code=ItemCode.IMAGE_CORRUPT, detail="d")])
    return {
        "check": lambda connection: steps.check(connection, lease),
        "finish": lambda connection: steps.finish(connection, lease),
        "hand_back": lambda connection: steps.hand_back(connection, lease, delay_ms=0, counts=False),
        "hand_back_counted": lambda connection: steps.hand_back(connection, lease, delay_ms=9_000, counts=True),
        "staged": lambda connection: chunks.record_staged(connection, lease, key="job/x", chunk=staged),
        "all_failed": lambda connection: chunks.record_staged(connection, lease, key=None, chunk=failed),
        "too_large": lambda connection: chunks.fail_too_large(connection, lease),
        "dead": lambda connection: chunks.record_dead(connection, lease, "d"),
    }


def extract_writes(lease):
    """Everything that a worker may write of an extract step."""
    answered = ChunkOutcome(replies=(Reply(indexes=(lease.part,), text="", result="r"),))
    failed = ChunkOutcome(failures=(Failure(index=lease.part, code=ItemCode.SAFETY_BLOCKED, detail="d"),))
    return {
        "hand_back": lambda connection: steps.hand_back(connection, lease, delay_ms=0, counts=True),
        "answered": lambda connection: chunks.record_outcome(connection, lease, answered, last=False),
        "last": lambda connection: chunks.record_outcome(connection, lease, answered, last=True),
        "failed": lambda connection: chunks.record_outcome(connection, lease, failed, last=True),
        "dead": lambda connection: chunks.record_dead(connection, lease, "d"),
    }


def ground_lease(database, job):
    """A job's first chunk is answered, and the job has evidence."""
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(evidence=["unsupported"]))
    lease = extract_lease(database, job, 0)
    with database.write() as connection:
        (step,) = extract_writes(lease)["last"](connection)
    return claimed(database, step)


def ground_writes(lease):
    found = {lease.part: not_read("d")}
    return {
        "hand_back": lambda connection: steps.hand_back(connection, lease, delay_ms=0, counts=True),
        "found": lambda connection: evidence.record_findings(connection, lease, found, stored=7, last=False),
        "last": lambda connection: evidence.record_findings(connection, lease, found, stored=7, last=True),
        "dead": lambda connection: evidence.give_up(connection, lease),
    }


def finalize_lease(database, job):
    lease = extract_lease(database, job, 0)
    with database.write() as connection:
        (step,) = extract_writes(lease)["last"](connection)
    return claimed(database, step)


def finalize_writes(lease):
    verdict = Verdict(status=JobStatus.SUCCEEDED, result="r", error=None)
    return {
        "hand_back": lambda connection: steps.hand_back(connection, lease, delay_ms=0, counts=True),
        "finish": lambda connection: closing.finish_job(connection, lease, verdict),
    }


WRITES = {
    "stage": (stage_writes, lambda database, job: claimed(database, step_ids(database, job)[0])),
    "extract": (extract_writes, lambda database, job: extract_lease(database, job, 0)),
    "ground": (ground_writes, ground_lease),
    "finalize": (finalize_writes, finalize_lease),
}
CASES = [
    *(
        ("stage", name)
        for name in ("check", "finish", "hand_back", "hand_back_counted", "staged", "all_failed", "too_large", "dead")
    ),
    *(("extract", name) for name in ("hand_back", "answered", "last", "failed", "dead")),
    *(("ground", name) for name in ("hand_back", "found", "last", "dead")),
    *(("finalize", name) for name in ("hand_back", "finish")),
]


def stolen_by_another(database, lease):
    stolen(database, lease)


def reclaimed(database, lease):
    set_steps(database, lease.step, lease_until=0)
    assert reclaim(database) == 1


def already_ended(database, lease):
    with database.write() as connection:
        steps.finish(connection, lease)


def closed_with_its_job(database, lease):
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == lease.job).values(deadline_at=0))
    with database.write() as connection:
        assert closing.close_overdue(connection, lease.job)


@pytest.mark.parametrize("lost", [stolen_by_another, reclaimed, already_ended, closed_with_its_job])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_lease_that_is_lost_writes_nothing(database, job, kind, name, lost):
    writes, lease_of = WRITES[kind]
    lease = lease_of(database, job)
    lost(database, lease)
    before = everything(database)
    with pytest.raises(LostLease), database.write() as connection:
        writes(lease)[name](connection)
    assert everything(database) == before


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_lease_that_holds_may_write(database, job, kind, name):
    writes, lease_of = WRITES[kind]
    lease = lease_of(database, job)
    before = everything(database)
    with database.write() as connection:
        writes(lease)[name](connection)
    assert (everything(database) == before) == (name == "check")


def test_a_lease_that_ran_out_still_holds_until_somebody_takes_the_step(database, step):
    lease = claimed(database, step)
    set_steps(database, step, lease_until=0)
    with database.write() as connection:
        steps.finish(connection, lease)
    assert step_row(database, step).state == "done"
    assert reclaim(database) == 0


# Renewing, handing back, reclaiming


def test_renewing_prolongs_what_is_held_and_not_what_is_lost(database, account):
    first, second = step_ids(database, new_job(database, account, images=2))
    kept, lost = claimed(database, first), claimed(database, second)
    thief = stolen(database, lost)
    before = step_row(database, second)
    set_steps(database, first, lease_until=1)
    with database.write() as connection:
        assert steps.renew(connection, kept, lease_ms=60_000)
        assert not steps.renew(connection, lost, lease_ms=60_000)
    assert step_row(database, first).lease_until > now(database) + 50_000
    assert step_row(database, second) == before
    assert thief.epoch == 3


@pytest.mark.parametrize(("counts", "tries"), [(False, 0), (True, 1)])
def test_a_step_handed_back_is_due_after_its_delay(database, step, counts, tries):
    ring(database)
    lease = claimed(database, step)
    before = now(database)
    with database.write() as connection:
        steps.hand_back(connection, lease, delay_ms=30_000, counts=counts)
    row = step_row(database, step)
    assert (row.state, row.tries, row.owner, row.lease_until, row.rung_at, row.rings) == ("ready", tries, None, None, None, 0)
    assert before + 30_000 <= row.not_before <= now(database) + 30_000
    assert ring(database) == []
    set_steps(database, step, not_before=0)
    assert rung_now(database) == [step]
    assert claimed(database, step).tries == tries


def test_reclaiming_takes_what_has_run_out_and_leaves_the_rest(database, account):
    ready, running, expired, done = step_ids(database, new_job(database, account, images=4))
    for step in (running, expired, done):
        claimed(database, step)
    set_steps(database, expired, lease_until=now(database) - 1, rings=3, rung_at=now(database))
    set_steps(database, done, state="done", lease_until=None)
    assert reclaim(database) == 1
    row = step_row(database, expired)
    assert (row.state, row.epoch, row.expiries, row.tries) == ("ready", 2, 1, 0)
    assert (row.owner, row.lease_until, row.rung_at, row.rings) == (None, None, None, 0)
    assert step_row(database, running).state == "leased"
    assert (step_row(database, ready).epoch, step_row(database, done).state) == (0, "done")


def test_of_supervisors_that_reclaim_at_once_each_expiry_counts_once(database, account):
    ids = step_ids(database, new_job(database, account, images=8))
    for step in ids:
        claimed(database, step)
    set_steps(database, lease_until=0)
    assert sum(at_once(*[lambda: reclaim(database)] * 3)) == 8
    assert {step_row(database, step).expiries for step in ids} == {1}


# Cancelling


def cancel(database, job):
    with database.write() as connection:
        return steps.cancel_open(connection, job=job, round_=1)


def test_cancelling_ends_open_work_and_leaves_what_is_over_and_the_cleanup(database, account):
    job = new_job(database, account, images=3)
    ready, leased, done = step_ids(database, job)
    claimed(database, leased, lease_ms=40_000)
    set_steps(database, done, state="done", epoch=7)
    with database.write() as connection:
        (cleanup,) = steps.add(connection, job=job, round_=1, kind=StepKind.CLEANUP)
    left = cancel(database, job)
    assert 30_000 < left <= 40_000
    assert [(step_row(database, step).state, step_row(database, step).epoch) for step in (ready, leased, done, cleanup)] == [
        ("cancelled", 1),
        ("cancelled", 2),
        ("done", 7),
        ("ready", 0),
    ]
    assert step_row(database, leased).owner is None


def test_cancelling_says_zero_where_nobody_works(database, account):
    job = new_job(database, account, images=2)
    assert cancel(database, job) == 0
    assert cancel(database, job) == 0


def test_a_lease_that_has_run_out_is_not_waited_for(database, job, step):
    claimed(database, step)
    set_steps(database, step, lease_until=1)
    assert cancel(database, job) == 0


def test_cancelling_a_job_leaves_every_other_job(database, account, job):
    other = new_job(database, account)
    cancel(database, job)
    assert step_row(database, step_ids(database, other)[0]).state == "ready"
