"""What the supervisor mends: what was lost, left over, late, or left behind."""

from __future__ import annotations

import threading

from sqlalchemy import delete, select, update

from pipeline.merge import MalformedJson, parse_json
from pipeline.metrics import JOBS_OVERDUE
from pipeline.types import Answer, Finish, JobStatus
from storage import schema
from tests.component.workers import supervision
from tests.component.workers.supervision import ASYNC, accepted, finalize_steps, strand
from tests.fakes.engine import FakeEngine
from tests.rows import (
    at_once,
    claimed,
    eventually,
    everything,
    job_row,
    new_job,
    set_steps,
    step_ids,
    step_row,
)
from workers.supervisor import (
    IDLE_SECONDS,
    PURGED_AT_ONCE,
    Supervisor,
)

house, clock, supervisor = supervision.house, supervision.clock, supervision.supervisor  # fixtures


# Stranded jobs


def test_a_running_job_with_nothing_open_is_finalized(house, supervisor):
    job = accepted(house)
    strand(house, job)
    supervisor.finalize_stranded()
    assert len(finalize_steps(house, job)) == 1
    assert job_row(house.database, job).status == "finalizing"
    house.drain()
    assert job_row(house.database, job).status == "failed"


def test_a_job_that_still_has_an_open_chunk_or_a_finalize_step_is_left_alone(house, supervisor):
    accepted(house, 2)
    finalizing = accepted(house)
    strand(house, finalizing)
    supervisor.finalize_stranded()
    before = everything(house.database)
    supervisor.finalize_stranded()
    assert everything(house.database) == before


def test_an_ended_job_is_not_finalized_again(house, supervisor):
    job = accepted(house)
    house.drain()
    with house.database.write() as connection:
        connection.execute(delete(schema.steps_table).where(schema.steps_table.c.job == job))
    supervisor.finalize_stranded()
    assert finalize_steps(house, job) == []


def test_an_idle_supervisor_looks_for_stranded_jobs_less_often(house, supervisor, clock):
    supervisor.free_steps()
    supervisor.look_after_jobs()
    job = accepted(house)
    strand(house, job)
    clock.now += IDLE_SECONDS - 1
    supervisor.free_steps()
    supervisor.look_after_jobs()
    assert finalize_steps(house, job) == []
    clock.now += 1
    supervisor.look_after_jobs()
    assert len(finalize_steps(house, job)) == 1


def test_a_supervisor_with_open_steps_ends_overdue_jobs_each_second(house, supervisor, clock):
    supervisor.free_steps()
    supervisor.look_after_jobs()
    job = accepted(house)
    house.make_overdue()
    clock.now += 1
    supervisor.free_steps()
    supervisor.look_after_jobs()
    assert JobStatus(job_row(house.database, job).status).ended


# Leases and rings


def test_a_worker_that_died_holding_a_step_costs_the_job_nothing_but_time(house, supervisor):
    job = accepted(house)
    claimed(house.database, step_ids(house.database, job)[0])
    supervisor.tick()
    house.drain()
    assert job_row(house.database, job).status == "running"
    set_steps(house.database, *step_ids(house.database, job), lease_until=0)
    supervisor.tick()
    house.drain()
    assert job_row(house.database, job).status == "succeeded"


def test_a_message_that_was_lost_is_sent_again_when_the_queue_is_empty(house, supervisor):
    job = accepted(house)
    assert house.signals.rung.get_nowait() == step_ids(house.database, job)[0]
    supervisor.ring()
    assert house.signals.rung.empty(), "it may be in a worker's hand"
    house.age_rings()
    supervisor.ring()
    assert house.signals.rung.get_nowait() == step_ids(house.database, job)[0]


def test_when_the_queue_is_empty_a_step_is_announced_again_long_before_its_patience_is_over(house, supervisor):
    """Redis has lost its messages 3 s ago. A step that was announced is otherwise announced again after 30 s."""
    step = step_ids(house.database, accepted(house))[0]
    house.signals.rung.get_nowait()
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).values(rung_at=schema.steps_table.c.rung_at - 3000))
    supervisor.ring()
    assert house.signals.rung.get_nowait() == step


def test_while_messages_wait_none_is_sent_twice(house, supervisor):
    accepted(house, 3)
    waiting = house.signals.rung.qsize()
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).values(rung_at=schema.steps_table.c.rung_at - 10_000))
    supervisor.ring()
    assert house.signals.rung.qsize() == waiting


# Deadlines


def test_a_late_job_ends_with_what_it_has_and_its_worker_is_fenced_off(house, supervisor):
    job = accepted(house)
    lease = claimed(house.database, step_ids(house.database, job)[0], lease_ms=30_000)
    house.make_overdue()
    supervisor.tick()
    row = job_row(house.database, job)
    assert (row.status, row.error_code, row.credits) == ("failed", "deadline_exceeded", 0)
    assert step_row(house.database, lease.step).state == "cancelled"
    first, second = (step_row(house.database, step) for step in step_ids(house.database, job, "cleanup"))
    assert (first.not_before, second.not_before > row.finished_at + 25_000) == (0, True)


def test_whoever_waits_for_a_late_job_is_woken(house, supervisor):
    job = accepted(house)
    house.make_overdue()
    with house.signals.watch(job) as watch:
        supervisor.end_overdue()
        assert watch.wait(0)


def test_a_job_that_cannot_be_ended_does_not_keep_the_others_open(house, supervisor):
    broken, other = accepted(house), accepted(house)
    with house.database.write() as connection:
        connection.execute(
            update(schema.jobs_table).where(schema.jobs_table.c.id == broken).values(options={"detail": "no such detail"})
        )
    house.make_overdue()
    supervisor.tick()
    assert job_row(house.database, other).status == "failed"
    assert job_row(house.database, broken).status == "queued"
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).values(options={}))
    supervisor.tick()
    assert job_row(house.database, broken).status == "failed"


def readable(text: str) -> bool:
    try:
        parse_json(text)
    except MalformedJson:
        return False
    return True


def test_answers_too_deep_to_be_merged_end_the_job_and_cost_nothing(make_harness):
    """Each can be read alone; joining them takes more of the stack. How deep that is depends on the interpreter."""
    deep = max(filter(readable, ('{"a":' * depth + "1" + "}" * depth for depth in (900, 1200, 3000))), key=len)
    house = make_harness(
        workers_count=0,
        engine=FakeEngine(script=lambda _call, _number: Answer(finish=Finish.COMPLETE, text=deep)),
        MERGED_PER_CALL="1",
    )
    answer = house.post({"inputMethod": "url", "images": house.urls(2), "prompt": "p", "jsonMode": True}, headers=ASYNC)
    house.drain()
    row = job_row(house.database, answer.json["id"])
    assert (row.status, row.error_code, row.credits) == ("failed", "internal_error", 0)


def test_a_finalize_that_keeps_failing_fails_the_job_and_releases_all(house, supervisor):
    job = accepted(house)
    step = claimed(house.database, step_ids(house.database, job)[0])
    set_steps(house.database, step.step, state="ready")
    with house.database.write() as connection:  # nothing can be made of a reply without its text
        connection.execute(update(schema.chunks_table).where(schema.chunks_table.c.job == job).values(replies=[{"indexes": [0]}]))
    for _ in range(4):
        house.skip_waits()
        house.drain()
    row = job_row(house.database, job)
    assert (row.status, row.error_code, row.result) == ("failed", "internal_error", None)
    assert "put the answers of this job together" in row.error_message
    assert house.balance() == (100_000, 0, 0)


# Results


def test_the_result_of_each_image_is_forgotten_too(house, supervisor):
    accepted(house)
    house.drain()
    with house.database.write() as connection:
        connection.execute(update(schema.images_table).values(result={"name": "somebody"}))
    house.make_expired()
    supervisor.purge()
    with house.database.read() as connection:
        assert connection.scalars(select(schema.images_table.c.result)).all() == [None]


def test_however_many_results_have_expired_one_purge_forgets_them_all(house, supervisor):
    jobs = [new_job(house.database, house.account) for _ in range(2 * PURGED_AT_ONCE + 1)]
    house.make_expired()
    supervisor.purge()
    assert [job for job in jobs if job_row(house.database, job).expires_at is not None] == []


def test_results_are_forgotten_when_their_time_is_over_and_only_then(house, supervisor, clock):
    job, kept = accepted(house), accepted(house)
    house.drain()
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(expires_at=1))
    supervisor.tick()
    assert (job_row(house.database, job).result, job_row(house.database, job).expires_at) == (None, None)
    assert job_row(house.database, job).credits == 11
    assert job_row(house.database, kept).result == "1=img0"
    with house.database.read() as connection:
        rows = connection.execute(
            select(schema.images_table.c.job, schema.images_table.c.source, schema.images_table.c.state)
        ).all()
        replies = dict(connection.execute(select(schema.chunks_table.c.job, schema.chunks_table.c.replies)).all())
    assert {row.job: (row.source is None, row.state) for row in rows} == {job: (True, "done"), kept: (False, "done")}
    assert (replies[job], len(replies[kept])) == ([], 1)


# Two of them


def overdue_count():
    return sum(count for _, count in JOBS_OVERDUE.values())


def test_two_supervisors_at_once_do_everything_once(house, clock):
    expired, stranded, late = accepted(house), accepted(house), accepted(house)
    claimed(house.database, step_ids(house.database, expired)[0])
    set_steps(house.database, *step_ids(house.database, expired), lease_until=0)
    strand(house, stranded)
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == late).values(deadline_at=0))
    both = [Supervisor(database=house.database, scratch=house.scratch, signals=house.signals, clock=clock) for _ in range(2)]
    counted = overdue_count()
    # Each of them frees steps and looks after jobs in two threads, as in production.
    at_once(*(errands for each in both for errands in (each.free_steps, each.look_after_jobs)))
    assert overdue_count() == counted + 1
    assert step_row(house.database, step_ids(house.database, expired)[0]).expiries == 1
    assert len(finalize_steps(house, stranded)) == 1
    assert [kind for kind, _ in house.ledger(late)] == ["reserve", "charge", "release"]
    assert len(step_ids(house.database, late, "cleanup")) == 1
    house.drain()
    assert {job_row(house.database, job).status for job in (expired, stranded, late)} == {"succeeded", "failed"}


def test_it_ticks_until_it_is_told_to_stop(house):
    stop = threading.Event()
    supervisor = Supervisor(database=house.database, scratch=house.scratch, signals=house.signals)
    job = new_job(house.database, house.account)
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    eventually(lambda: not house.signals.rung.empty())
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    house.drain()
    house.make_overdue()
    supervisor.end_overdue()
    assert JobStatus(job_row(house.database, job).status).ended
