"""The simulation of bench/queueing.py agrees with what is known of queues."""

from __future__ import annotations

import random

import pytest

from bench.queueing import HOUR, Fleet, Traffic, admitted, arrivals, simulate

CALLS = Traffic(calls=5.0, call_seconds=2.0)
ENOUGH = Fleet(threads=100, quota=0.0, deadline=600.0)


@pytest.mark.parametrize("large", [0.0, 0.5])
def test_the_calls_of_the_hour_are_as_many_as_were_asked_for_and_most_come_in_its_middle(large):
    times = list(arrivals(Traffic(calls=20.0, call_seconds=1.0, peak=2.0, large=large), random.Random(1)))
    assert len(times) == pytest.approx(20 * HOUR, rel=0.05)
    middle = [at for at in times if 0.45 * HOUR < at < 0.55 * HOUR]
    assert len(middle) / (0.1 * HOUR) == pytest.approx(38, rel=0.1)


def test_with_enough_threads_nobody_waits_and_littles_law_holds():
    found = simulate(CALLS, ENOUGH)
    assert found.wait99 == 0.0
    assert found.busy * ENOUGH.threads == pytest.approx(CALLS.calls * CALLS.call_seconds, rel=0.05)


def test_with_fewer_threads_than_the_work_needs_the_queue_grows_and_jobs_are_late():
    found = simulate(CALLS, Fleet(threads=8, quota=0.0, deadline=300.0))
    assert found.wait > 60.0
    assert found.late > 0.3
    assert found.busy > 0.9


def test_a_quota_lets_a_minute_of_calls_go_at_once_and_then_no_more_than_it_says():
    starts = [start for _, start in admitted(iter([0.0] * 240), quota=60.0)]
    assert starts[:60] == [0.0] * 60
    assert starts[-1] == pytest.approx(180.0, abs=2.0)


def test_a_quota_below_the_average_makes_jobs_late_however_many_threads_there_are():
    assert simulate(CALLS, Fleet(threads=1000, quota=240.0, deadline=300.0)).late > 0.3


def test_the_same_seed_gives_the_same_hour():
    assert simulate(CALLS, ENOUGH) == simulate(CALLS, ENOUGH)
