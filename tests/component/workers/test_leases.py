"""The thread that keeps leases alive: as long as the work goes on, but no longer than it may."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from pipeline.errors import Transient
from storage.database import Database, now_ms
from storage.queue import steps
from tests.rows import claimed, eventually, new_account, new_job, set_steps, step_ids, step_row, stolen
from workers.leases import LeaseKeeper

LEASE = 0.2  # seconds: a beat is a quarter of it


@pytest.fixture
def ids(database):
    return step_ids(database, new_job(database, new_account(database), images=3))


@pytest.fixture
def keeper(database):
    made = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=600)
    yield made
    made.close()


class Watched:
    """A database whose writes are counted, and fail as long as `away` is set."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.writes = 0
        self.away = False

    @contextmanager
    def write(self):
        self.writes += 1
        if self.away:
            raise Transient("gone")
        with self.database.write() as connection:
            yield connection


def until(database, step):
    return step_row(database, step).lease_until


def renewed(database, step):
    """Waits until the lease is longer than it is now."""
    was = until(database, step)
    eventually(lambda: until(database, step) > was)


def has_run_out(database, step):
    with database.read() as connection:
        now = connection.scalar(select(now_ms()))
    return until(database, step) < now


def test_what_is_held_is_renewed_again_and_again(database, ids, keeper):
    with keeper.holding(claimed(database, ids[0], lease_ms=0)):
        for _ in range(3):
            renewed(database, ids[0])


def test_all_that_a_process_holds_is_renewed_together(database, ids, keeper):
    leases = [claimed(database, step, lease_ms=0) for step in ids]
    with keeper.holding(leases[0]), keeper.holding(leases[1]), keeper.holding(leases[2]):
        set_steps(database, lease_until=1)
        eventually(lambda: 1 not in [until(database, step) for step in ids])


def test_what_is_no_longer_held_is_left_to_run_out(database, ids, keeper):
    lease = claimed(database, ids[0], lease_ms=0)
    with keeper.holding(lease):
        renewed(database, ids[0])
    eventually(lambda: has_run_out(database, ids[0]))
    with database.write() as connection:
        assert steps.reclaim_expired(connection) == 1


def test_a_step_that_raises_is_no_longer_held(database, ids, keeper):
    def fail():
        with keeper.holding(claimed(database, ids[0], lease_ms=0)):
            renewed(database, ids[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    eventually(lambda: has_run_out(database, ids[0]))


def test_no_lease_is_kept_past_the_step_s_limit(database, ids):
    """A stuck thread must not keep its step for ever."""
    keeper = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=LEASE * 2)
    lease = claimed(database, ids[0], lease_ms=0)
    first = until(database, ids[0])
    with keeper.holding(lease):
        eventually(lambda: until(database, ids[0]) > first)
        eventually(lambda: has_run_out(database, ids[0]))
        with database.write() as connection:
            assert steps.reclaim_expired(connection) == 1
    keeper.close()


def test_the_time_of_a_slow_call_does_not_count_towards_the_step_s_limit(database, ids):
    calm = threading.Event()
    keeper = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=1.0, on_stuck=calm.set)
    lease = claimed(database, ids[0], lease_ms=0)
    with keeper.holding(lease), keeper.in_slow_call(lease, seconds=600):
        limit = time.monotonic() + 1.0
        while time.monotonic() < limit:
            renewed(database, ids[0])
        renewed(database, ids[0])
        assert not calm.is_set()
    keeper.close()


def test_a_slow_call_has_a_limit_of_its_own(database, ids):
    reported = threading.Event()
    keeper = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=0.1, on_stuck=reported.set)
    lease = claimed(database, ids[0])
    with keeper.holding(lease), keeper.in_slow_call(lease, seconds=0.1):
        assert reported.wait(20)
        eventually(lambda: has_run_out(database, ids[0]))
    keeper.close()


def test_the_end_of_a_process_waits_for_no_slow_call_and_hands_its_step_back(database, ids, keeper):
    lease = claimed(database, ids[0])
    with keeper.holding(lease):
        assert keeper.busy() == 1
        assert not keeper.wait_until_free(0)
        with keeper.in_slow_call(lease, seconds=600):
            assert keeper.busy() == 0
            assert keeper.wait_until_free(0)
            assert keeper.held() == [lease]
        assert keeper.busy() == 1


def test_a_thread_that_is_stuck_in_a_step_is_reported_and_one_that_is_not_is_not(database, ids):
    """A process reports it to its drain, which ends the process: a thread can't be stopped."""
    reported = threading.Event()
    keeper = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=0.1, on_stuck=reported.set)
    calm = threading.Event()
    other = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=600, on_stuck=calm.set)
    with other.holding(claimed(database, ids[1])), keeper.holding(claimed(database, ids[0])):
        assert reported.wait(20)
        renewed(database, ids[1])
    keeper.close()
    other.close()
    assert not calm.is_set()


def test_a_lost_lease_is_dropped_and_its_new_holder_s_left_alone(database, ids, keeper):
    lost = claimed(database, ids[0], lease_ms=0)
    kept = claimed(database, ids[1], lease_ms=0)
    with keeper.holding(lost), keeper.holding(kept):
        set_steps(database, ids[0], epoch=7, lease_until=1)
        renewed(database, ids[1])
        renewed(database, ids[1])
        assert until(database, ids[0]) == 1


def test_a_lease_whose_holder_has_just_ended_the_step_is_not_lost(database, ids):
    watched = Watched(database)
    keeper = LeaseKeeper(watched, lease_seconds=LEASE, step_seconds=600)
    lease = claimed(database, ids[0])
    with keeper.holding(lease):
        with database.write() as connection:
            steps.finish(connection, lease)
        beats = watched.writes + 2
        eventually(lambda: watched.writes > beats)
        assert keeper.held() == [lease]
    keeper.close()


def test_a_lost_lease_is_forgotten_while_others_are_kept(database, ids, keeper):
    lost, kept = claimed(database, ids[0]), claimed(database, ids[1], lease_ms=0)
    with keeper.holding(lost), keeper.holding(kept):
        set_steps(database, ids[0], state="cancelled", epoch=9)
        eventually(lambda: keeper.held() == [kept])
        renewed(database, ids[1])


def test_a_worker_that_lost_its_step_does_not_drop_the_lease_of_its_successor(database, ids, keeper):
    """Both may be threads of one process."""
    first = claimed(database, ids[0])
    with keeper.holding(first):
        second = stolen(database, first)
        successor = keeper.holding(second)
        successor.__enter__()
    set_steps(database, ids[0], lease_until=0)
    renewed(database, ids[0])
    successor.__exit__(None, None, None)


def test_a_database_that_is_away_for_a_while_loses_no_lease(database, ids):
    watched = Watched(database)
    watched.away = True
    keeper = LeaseKeeper(watched, lease_seconds=LEASE, step_seconds=600)
    with keeper.holding(claimed(database, ids[0], lease_ms=0)):
        eventually(lambda: watched.writes >= 2)
        watched.away = False
        renewed(database, ids[0])
    keeper.close()


def test_a_keeper_that_is_closed_renews_no_more(database, ids):
    keeper = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=600)
    with keeper.holding(claimed(database, ids[0], lease_ms=0)):
        renewed(database, ids[0])
        keeper.close()
        eventually(lambda: has_run_out(database, ids[0]))


def test_a_process_is_told_once_that_it_rests_after_each_time_in_which_it_worked(database, ids):
    rests = []
    keeper = LeaseKeeper(database, lease_seconds=LEASE, step_seconds=600, on_rest=lambda: rests.append(keeper.held()))
    with keeper.holding(claimed(database, ids[0], lease_ms=0)):
        renewed(database, ids[0])
        assert rests == [], "it works"
    eventually(lambda: rests == [[]])
    with keeper.holding(claimed(database, ids[1], lease_ms=0)), keeper.holding(claimed(database, ids[2], lease_ms=0)):
        renewed(database, ids[1])
        assert rests == [[]], "nothing was done since"
    eventually(lambda: rests == [[], []])
    keeper.close()


def test_a_worker_that_rests_gives_the_memory_that_it_has_freed_back_to_the_system():
    """In a process of its own, because the heaps of this one hold what other tests have made."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc keeps what was freed")
    program = """
from pathlib import Path
from workers.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kept = [bytes(100_000) for _ in range(600)]
between = [bytearray(1) for _ in range(600)]
del kept[::2], kept[:-1]
before = resident()
give_back()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000_000
