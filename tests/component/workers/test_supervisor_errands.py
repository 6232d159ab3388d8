"""What the supervisor does beside the jobs: it sweeps scratch, checks the credits, and bears errands that fail or hang."""

from __future__ import annotations

import io
import threading

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from pipeline.errors import Transient
from pipeline.metrics import BOOKS_WRONG
from storage import schema
from storage.job import accepting, closing
from tests.component.workers import supervision
from tests.component.workers.supervision import accepted, put
from tests.fakes.scratch import MemoryScratch
from tests.rows import (
    claimed,
    eventually,
    job_of,
    job_row,
    set_steps,
    step_ids,
    step_row,
)
from workers.supervisor import (
    CREDITS_SECONDS,
    HUNG_SECONDS,
    SWEEP_FULL_SECONDS,
    UNKNOWN_FULL_SECONDS,
    UNKNOWN_SECONDS,
    Supervisor,
)

house, clock, supervisor = supervision.house, supervision.clock, supervision.supervisor  # fixtures


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


# Credits


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
