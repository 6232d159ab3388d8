"""The promise of economy jobs: when their calls are asked at the standard price, and what a whole job saves."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.economy import (
    ASKED_AGAIN,
    FLEX_SECONDS,
    RESERVE_SECONDS,
    TYPICAL_SECONDS,
    Backlog,
    Pace,
    last_moment,
    next_ask,
    pace_of,
)
from pipeline.models import Model
from pipeline.types import Tier
from tests.fakes.flex import FlexServer

HOUR = 3600.0
PACE = Pace(calls_per_second=1.0, seconds=30.0)

paces = st.builds(Pace, calls_per_second=st.floats(0.01, 100), seconds=st.floats(1, 120))
backlogs = st.lists(st.builds(Backlog, left=st.floats(0, 24 * HOUR), calls=st.integers(0, 3000)), max_size=5)


def test_the_last_call_of_the_row_is_asked_one_reserve_before_the_deadline():
    moment = last_moment(left=HOUR, after=0, later=[], pace=PACE)
    assert moment == HOUR - ASKED_AGAIN - PACE.seconds - RESERVE_SECONDS


@given(left=st.floats(0, 24 * HOUR), pace=paces, later=backlogs, calls=st.integers(2, 50))
def test_the_calls_of_a_job_are_asked_no_faster_than_the_pace(left, pace, later, calls):
    later = [Backlog(left=max(other.left, left), calls=other.calls) for other in later]
    moments = [last_moment(left=left, after=place, later=later, pace=pace) for place in range(calls)]
    steps = [one - two for one, two in pairwise(moments)]
    assert min(steps) == pytest.approx(ASKED_AGAIN / pace.calls_per_second, rel=1e-3, abs=1e-3)
    assert moments[0] < left - RESERVE_SECONDS


@given(left=st.floats(0, 24 * HOUR), pace=paces, calls=st.lists(st.integers(0, 3000), max_size=5))
def test_jobs_with_the_same_deadline_stand_in_one_row(left, pace, calls):
    later = [Backlog(left=left, calls=count) for count in calls]
    as_one = last_moment(left=left, after=sum(calls), later=[], pace=pace)
    assert last_moment(left=left, after=0, later=later, pace=pace) == pytest.approx(as_one, rel=1e-6, abs=1e-3)


def test_a_job_with_a_later_deadline_counts_only_with_the_calls_that_reach_back_to_this_deadline():
    alone = last_moment(left=HOUR, after=0, later=[], pace=PACE)
    small, large = Backlog(left=2 * HOUR, calls=100), Backlog(left=2 * HOUR, calls=2500)
    assert last_moment(left=HOUR, after=0, later=[small], pace=PACE) == alone
    assert last_moment(left=HOUR, after=0, later=[large], pace=PACE) == alone - (2500 * ASKED_AGAIN - HOUR)
    assert last_moment(left=HOUR, after=0, later=[small, large], pace=PACE) == alone - (2600 * ASKED_AGAIN - HOUR)


@given(left=st.floats(-HOUR, 24 * HOUR), after=st.integers(0, 3000), later=backlogs, pace=paces)
def test_an_economy_call_is_given_up_in_time_for_a_standard_one(left, after, later, pace):
    ask = next_ask(left=left, after=after, later=later, pace=pace)
    moment = last_moment(left=left, after=after, later=later, pace=pace)
    assert 0 <= ask.timeout <= max(left, 0)
    if ask.tier is Tier.ECONOMY:
        assert TYPICAL_SECONDS <= ask.timeout <= min(moment, FLEX_SECONDS)
    else:
        assert moment < TYPICAL_SECONDS


def test_an_economy_call_is_begun_only_if_half_of_those_before_were_answered_in_such_a_time():
    later = Backlog(left=HOUR, calls=1000)  # leaves 1828 s
    assert next_ask(left=HOUR, after=0, later=[later], pace=PACE, seen=[60, 1800, 3000]).tier is Tier.ECONOMY
    assert next_ask(left=HOUR, after=0, later=[later], pace=PACE, seen=[60, 1900, 3000]).tier is Tier.STANDARD


def test_the_pace_is_half_of_the_narrowest_limit():
    free, asked = Model(name="m"), Model(name="m", rpm=60)
    assert pace_of(free, tokens=1000, concurrency=60, seconds=30).calls_per_second == 1.0
    assert pace_of(asked, tokens=1000, concurrency=6000, seconds=30).calls_per_second == 0.5
    assert pace_of(Model(name="m", rpm=60, tpm=6000), tokens=1000, concurrency=600).calls_per_second == 0.05


@dataclass
class Ended:
    """How a simulated job ended."""

    at: list[float]  #: when each call was answered
    cheap: int  #: calls that were served in economy
    asked_twice: int  #: economy calls that were given up before their answer


def simulated(
    server: FlexServer, *, calls: int, deadline: float, pace: Pace, places: int = 64, jobs: int = 1, seed: int = 0
) -> list[Ended]:
    """Runs jobs of so many calls each against the server, with a clock that jumps from event to event.

    The standard tier answers `pace.calls_per_second` calls a second, each within `pace.seconds`. A call that is shed waits as long
    as `workers` make it wait: some seconds with jitter, doubling up to a minute while nothing else is heard.
    """
    chance = random.Random(seed)
    ends = [Ended(at=[], cheap=0, asked_twice=0) for _ in range(jobs)]
    waiting: list[tuple[float, int, int]] = [(0.0, place, job) for job in range(jobs) for place in range(calls)]
    open_ = [list(range(calls)) for _ in range(jobs)]
    heapq.heapify(waiting)
    answers: list[tuple[float, int, int, bool]] = []
    seen: list[float] = []
    busy, standard_free, sheds = [], 0.0, 0
    while waiting or answers:
        now = min(waiting[0][0] if waiting else float("inf"), answers[0][0] if answers else float("inf"))
        while answers and answers[0][0] <= now:
            at, place, job, is_cheap = heapq.heappop(answers)
            ends[job].at.append(at)
            ends[job].cheap += is_cheap
            open_[job].remove(place)
        if not waiting or waiting[0][0] > now:
            continue
        _, place, job = heapq.heappop(waiting)
        later = [Backlog(left=deadline - now, calls=len(others)) for others in open_[job + 1 :]]
        after = bisect_left(open_[job], place)
        ask = next_ask(left=deadline - now, after=after, later=later, pace=pace, seen=seen[-50:])
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if ask.tier is Tier.STANDARD:
            standard_free = max(standard_free, now) + 1 / pace.calls_per_second
            heapq.heappush(answers, (standard_free + pace.seconds, place, job, False))
        elif len(busy) >= places:
            heapq.heappush(waiting, (now + chance.uniform(1, 5), place, job))
        elif (outcome := server.treat(at=now)).shed:
            sheds += 1
            wait = min(10 * 2 ** min(sheds // 10, 3), 60) * chance.uniform(0.5, 1.5)
            heapq.heappush(waiting, (now + wait, place, job))
        elif outcome.seconds > ask.timeout:
            ends[job].asked_twice += 1
            heapq.heappush(busy, now + ask.timeout)
            heapq.heappush(waiting, (now + ask.timeout, place, job))
        else:
            sheds = 0
            seen.append(outcome.seconds)
            heapq.heappush(busy, now + outcome.seconds)
            heapq.heappush(answers, (now + outcome.seconds, place, job, not outcome.served_as_standard))
    return ends


CALLS = 30  # enough for the pattern, and few enough for a quick test
LIMITED = Pace(calls_per_second=0.1, seconds=30)


def always(_at: float) -> bool:
    return True


def never(_at: float) -> bool:
    return False


@pytest.mark.parametrize("seed", range(3))
def test_with_capacity_throughout_every_call_of_3000_images_is_cheap(seed):
    pace = Pace(calls_per_second=0.5, seconds=30)
    [end] = simulated(FlexServer(seed=seed, has_capacity=always), calls=150, deadline=4 * HOUR, pace=pace)
    assert (end.cheap, end.asked_twice) == (150, 0)
    assert max(end.at) < 4 * HOUR


@pytest.mark.parametrize(("deadline", "calls"), [(4 * HOUR, CALLS), (HOUR, CALLS), (1200, CALLS), (24 * HOUR, 10)])
def test_without_capacity_every_call_is_answered_in_time_at_the_standard_price(deadline, calls):
    [end] = simulated(FlexServer(has_capacity=never), calls=calls, deadline=deadline, pace=LIMITED)
    assert (end.cheap, len(end.at)) == (0, calls)
    assert max(end.at) < deadline


PATTERNS: dict[str, tuple[Callable[[float], bool], float]] = {
    "ten minutes of every hour": (lambda at: at % HOUR < 600, 0.0),
    "a gap in the middle, and most calls shed": (lambda at: not HOUR < at < 2.5 * HOUR, 0.7),
    "only in the last hour and a half": (lambda at: at > 2.5 * HOUR, 0.3),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_with_capacity_that_comes_and_goes_nine_tenths_of_what_could_be_saved_is_saved(pattern, seed):
    has_capacity, shed = PATTERNS[pattern]
    server = FlexServer(seed=seed, has_capacity=has_capacity, shed=shed)
    [end] = simulated(server, calls=CALLS, deadline=4 * HOUR, pace=LIMITED, seed=seed)
    assert max(end.at) < 4 * HOUR
    # In each pattern, a plan that knows the future has every call answered in economy.
    assert end.cheap >= 0.9 * CALLS


@pytest.mark.parametrize("capacity", [always, never, lambda at: at % HOUR < 600])
def test_twenty_jobs_with_one_deadline_are_all_there_in_time(capacity):
    pace = Pace(calls_per_second=0.2, seconds=30)
    ends = simulated(FlexServer(has_capacity=capacity, shed=0.3), calls=5, deadline=1.5 * HOUR, pace=pace, jobs=20)
    assert [len(end.at) for end in ends] == [5] * 20
    assert max(at for end in ends for at in end.at) < 1.5 * HOUR


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32),
    shed=st.floats(0, 1),
    standard=st.floats(0, 1),
    bounds=st.lists(st.floats(0, 2 * HOUR), max_size=6).map(sorted),
    calls=st.integers(1, 20),
    left=st.floats(1500, 2 * HOUR),
    rate=st.floats(0.2, 5),
)
def test_whatever_the_capacity_does_every_answer_is_there_before_the_deadline(
    seed: int, shed: float, standard: float, bounds: Sequence[float], calls: int, left: float, rate: float
) -> None:
    server = FlexServer(
        seed=seed, shed=shed, standard=standard, has_capacity=lambda at: sum(bound < at for bound in bounds) % 2 == 0
    )
    pace = Pace(calls_per_second=rate, seconds=30)
    [end] = simulated(server, calls=calls, deadline=left, pace=pace, places=16, seed=seed)
    assert len(end.at) == calls
    assert max(end.at) < left
