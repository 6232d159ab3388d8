"""What the supervisor mends: what was lost, left over, late, or left behind."""

from __future__ import annotations

import io
import threading

import pytest
from sqlalchemy import delete, select, update
from structlog.testing import capture_logs

from pipeline.errors import Transient
from pipeline.merge import MalformedJson, parse_json
from pipeline.metrics import BOOKS_WRONG, JOBS_OVERDUE
from pipeline.types import Answer, Finish, JobStatus
from storage import schema
from storage.job import accepting, closing
from tests.fakes.engine import FakeEngine
from tests.fakes.scratch import MemoryScratch
from tests.rows import (
    at_once,
    claimed,
    eventually,
    everything,
    job_of,
    job_row,
    new_job,
    set_steps,
    step_ids,
    step_row,
)
from workers.supervisor import (
    CREDITS_SECONDS,
    HUNG_SECONDS,
    IDLE_SECONDS,
    PURGED_AT_ONCE,
    SWEEP_FULL_SECONDS,
    UNKNOWN_FULL_SECONDS,
    UNKNOWN_SECONDS,
    Supervisor,
)

ASYNC = {"Prefer": "respond-async"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def house(make_harness):
    return make_harness(workers_count=0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def supervisor(house, clock):
    return Supervisor(database=house.database, scratch=house.scratch, signals=house.signals, clock=clock)


def accepted(house, count=1):
    answer = house.post({"inputMethod": "url", "images": house.urls(count), "prompt": "p"}, headers=ASYNC)
    return answer.json["id"]


def put(house, key):
    house.scratch.put(key, io.BytesIO(b"x"))


def finalize_steps(house, job):
    return step_ids(house.database, job, "finalize")


# Stranded jobs


def strand(house, job):
    """As if the process that closed the last chunk had not added the finalize step."""
    with house.database.write() as connection:
        connection.execute(update(schema.chunks_table).where(schema.chunks_table.c.job == job).values(open=False))
        connection.execute(
            update(schema.images_table)
            .where(schema.images_table.c.job == job)
            .values(state="failed", code="cancelled", detail="d")
        )
        connection.execute(delete(schema.steps_table).where(schema.steps_table.c.job == job))


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


# Scratch


def test_scratch_of_a_job_that_is_over_is_swept(house, supervisor):
    job = accepted(house)
    house.drain()
    put(house, f"{job}/r1-c0-e9")
    supervisor.sweep()
    assert house.scratch.objects == {}


def test_scratch_of_an_open_job_and_of_one_that_is_being_cleaned_up_is_left(house, supervisor):
    open_job, ended = accepted(house), accepted(house)
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == ended).values(deadline_at=0))
        closing.close_overdue(connection, ended)
    put(house, f"{open_job}/a")
    put(house, f"{ended}/a")
    supervisor.sweep()
    assert sorted(house.scratch.objects) == sorted([f"{open_job}/a", f"{ended}/a"])


def test_scratch_that_belongs_to_no_job_goes_only_after_half_an_hour(house, supervisor, clock):
    put(house, "job_unknown/a")
    supervisor.sweep()
    clock.now += UNKNOWN_SECONDS
    supervisor.sweep()
    assert list(house.scratch.objects) == ["job_unknown/a"]
    clock.now += 1
    supervisor.sweep()
    assert house.scratch.objects == {}


def test_scratch_whose_job_is_accepted_in_time_is_kept(house, supervisor, clock):
    new = job_of(house.account)
    put(house, f"{new.id}/a")
    supervisor.sweep()
    with house.database.write() as connection:
        accepting.accept(connection, new, max_open=10, max_scratch=10**12)
    clock.now += UNKNOWN_SECONDS * 2
    supervisor.sweep()
    assert list(house.scratch.objects) == [f"{new.id}/a"]


def test_scratch_of_no_job_stays_while_something_is_added_to_it(house, supervisor, clock):
    for name in "abc":
        put(house, f"job_unknown/{name}")
        supervisor.sweep()
        clock.now += UNKNOWN_SECONDS
    supervisor.sweep()
    assert len(house.scratch.objects) == 3
    clock.now += 1
    supervisor.sweep()
    assert house.scratch.objects == {}


def test_while_storage_is_full_scratch_of_no_job_goes_sooner(house, supervisor, clock):
    put(house, "job_unknown/a")
    supervisor.tick()
    clock.now += UNKNOWN_FULL_SECONDS + 1
    supervisor.tick()
    assert list(house.scratch.objects) == ["job_unknown/a"]
    house.signals.note_full_storage()
    clock.now += SWEEP_FULL_SECONDS
    supervisor.tick()
    assert house.scratch.objects == {}


def test_what_is_seen_again_after_it_was_gone_starts_anew(house, supervisor, clock):
    put(house, "job_unknown/a")
    supervisor.sweep()
    house.scratch.delete(["job_unknown/a"])
    clock.now += UNKNOWN_SECONDS + 1
    supervisor.sweep()
    put(house, "job_unknown/b")
    supervisor.sweep()
    assert list(house.scratch.objects) == ["job_unknown/b"]
    house.scratch.delete(["job_unknown/b"])


def test_each_tick_rings_and_only_some_sweep(house, supervisor, clock):
    job = accepted(house)
    house.drain()
    supervisor.tick()
    put(house, f"{job}/left")
    supervisor.tick()
    assert list(house.scratch.objects) == [f"{job}/left"]
    clock.now += 301
    supervisor.tick()
    assert house.scratch.objects == {}


# Errands that fail


class Broken:
    """Whatever is asked of it fails."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        def fail(*_args, **_options):
            raise self.error

        return fail


@pytest.mark.parametrize("error", [OSError("no disk"), ValueError("a bug"), Transient("gone")])
def test_an_errand_that_fails_does_not_stop_the_others(house, clock, error):
    job, late = accepted(house), accepted(house)
    claimed(house.database, step_ids(house.database, job)[0])
    set_steps(house.database, step_ids(house.database, job)[0], lease_until=0)
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == late).values(deadline_at=0))
    supervisor = Supervisor(database=house.database, scratch=Broken(error), signals=Broken(error), clock=clock)
    supervisor.tick()
    assert step_row(house.database, step_ids(house.database, job)[0]).state == "ready"
    assert job_row(house.database, late).status == "failed"


def test_scratch_that_cannot_be_deleted_does_not_keep_the_rest(house, clock):
    class Stubborn(MemoryScratch):
        def delete(self, keys):
            keys = list(keys)
            if any("stuck" in key for key in keys):
                raise Transient("1 scratch objects could not be deleted")
            super().delete(keys)

    scratch = Stubborn()
    for key in ("job_a/1", "job_stuck/1", "job_z/1"):
        scratch.put(key, io.BytesIO(b"x"))
    supervisor = Supervisor(database=house.database, scratch=scratch, signals=house.signals, clock=clock)
    supervisor.sweep()
    clock.now += UNKNOWN_SECONDS + 1
    supervisor.sweep()
    assert list(scratch.objects) == ["job_stuck/1"]


def test_a_supervisor_that_cannot_reach_anything_goes_on_when_it_can_again(house, clock):
    job = accepted(house)
    claimed(house.database, step_ids(house.database, job)[0])
    set_steps(house.database, lease_until=0)
    supervisor = Supervisor(database=Broken(OSError()), scratch=Broken(OSError()), signals=Broken(OSError()), clock=clock)
    supervisor.tick()
    supervisor.database, supervisor.scratch, supervisor.signals = house.database, house.scratch, house.signals
    supervisor.tick()
    assert house.signals.rung.qsize() == 2


class Waiting:
    """Does all that another object does. A call of one method waits until it is let go."""

    def __init__(self, real, method):
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self._real, self._method = real, method

    def __getattr__(self, name):
        real = getattr(self._real, name)

        def wait(*values, **named):
            self.begun.set()
            assert self.goes_on.wait(60)
            return real(*values, **named)

        return wait if name == self._method else real


@pytest.mark.parametrize(("part", "method"), [("scratch", "list"), ("scratch", "abort_uploads"), ("signals", "tell")])
def test_a_dead_worker_s_step_does_not_wait_for_an_errand_that_takes_long(house, part, method):
    job, late = accepted(house), accepted(house)
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == late).values(deadline_at=0))
    slow = Waiting(getattr(house, part), method)
    parts = {"database": house.database, "scratch": house.scratch, "signals": house.signals, part: slow}
    supervisor, stop = Supervisor(**parts), threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        assert slow.begun.wait(20)
        [step] = step_ids(house.database, job)
        claimed(house.database, step)
        set_steps(house.database, step, lease_until=0)
        eventually(lambda: step_row(house.database, step).expiries == 1)
        eventually(lambda: step_row(house.database, step).rung_at is not None)
    finally:
        slow.goes_on.set()
        stop.set()
        thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.mark.parametrize("seconds", [HUNG_SECONDS - 1, HUNG_SECONDS + 1])
def test_a_supervisor_whose_errand_hangs_no_longer_shows_that_it_is_alive(house, clock, seconds):
    slow = Waiting(house.scratch, "list")
    shown = []
    parts = {"database": house.database, "scratch": slow, "signals": house.signals, "clock": clock}
    supervisor = Supervisor(**parts, show_alive=lambda: shown.append(1))
    thread = threading.Thread(target=supervisor.look_after_jobs)
    thread.start()
    try:
        assert slow.begun.wait(20)
        clock.now += seconds
        supervisor.free_steps()
        assert bool(shown) is (seconds < HUNG_SECONDS)
    finally:
        slow.goes_on.set()
        thread.join(timeout=20)
    supervisor.free_steps()
    assert shown


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


def test_credits_that_differ_from_the_ledger_are_counted_and_logged_and_nobody_changes_them(house, supervisor, clock):
    def wrong():
        return {place[0]: found for place, found in BOOKS_WRONG.values()}

    supervisor.tick()
    assert wrong() == {"ledger": 0, "rounds": 0, "holds": 0}
    columns = schema.accounts_table.c
    with house.database.write() as connection:
        connection.execute(update(schema.accounts_table).values(available=columns.available + 1))
    supervisor.tick()
    assert wrong()["ledger"] == 0  # the whole ledger is not read each second
    clock.now += CREDITS_SECONDS + 1
    with capture_logs() as logs:
        supervisor.tick()
    assert wrong() == {"ledger": 1, "rounds": 0, "holds": 0}
    [line] = [line for line in logs if line["event"] == "books_are_wrong"]
    assert (line["log_level"], line["check"], line["findings"]) == ("error", "ledger", 1)
    with house.database.write() as connection:
        connection.execute(update(schema.accounts_table).values(available=columns.available - 1))
    supervisor.check_credits()
    assert wrong()["ledger"] == 0
