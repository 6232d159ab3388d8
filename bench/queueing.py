"""Simulates an hour of the busiest time: calls that come at random, the model's quota, and the workers' threads. It takes seconds.

It has none of the service's code. It answers one question: how long do calls wait for a thread and for the quota, and are jobs late?
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

from bench.report import print_report

HOUR = 3600.0
WARM_SECONDS = 300.0  #: of the hour, which are not counted, because the queue begins empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """An hour of calls."""

    calls: float  #: a second, on average over the hour
    call_seconds: float  #: mean time of a model call
    peak: float = 2.0  #: in the middle of the hour, times the average
    large: float = 0.0  #: fraction of the calls that come as a job of `large_calls` at once
    large_calls: int = 19


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    threads: int  #: of all workers
    quota: float  #: calls a minute; 0: no limit
    deadline: float  #: seconds from the arrival of a job to its end


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    calls: int
    wait: float  #: seconds, the median
    wait99: float  #: seconds, the 99th percentile
    busy: float  #: fraction of the threads that work, on average
    late: float  #: fraction of the calls that end after the deadline


def arrivals(traffic: Traffic, dice: random.Random) -> Iterator[float]:
    """The times of the calls: at random, rising to the peak in the middle of the hour and falling again."""
    highest, now = traffic.calls * traffic.peak, 0.0
    jobs = highest * (1 - traffic.large + traffic.large / traffic.large_calls)
    least = 2 / traffic.peak - 1  # at the ends of the hour, so that the average holds
    while (now := now + dice.expovariate(jobs)) < HOUR:
        share = least + (1 - least) * (1 - abs(2 * now / HOUR - 1))
        if dice.random() < share:
            large = dice.random() < traffic.large * highest / traffic.large_calls / jobs
            yield from [now] * (traffic.large_calls if large else 1)


def admitted(times: Iterator[float], quota: float) -> Iterator[tuple[float, float]]:
    """Each call's arrival and the time from which the quota lets it start: a bucket of one minute's calls that fills evenly."""
    free = -60.0
    for at in times:
        free = max(free, at - 60.0) + (60.0 / quota if quota else 0.0)
        yield at, max(at, free)


def simulate(traffic: Traffic, fleet: Fleet, seed: int = 1) -> Outcome:
    """Calls start in the order in which they come, as soon as the quota and a thread allow it."""
    dice = random.Random(seed)
    ready, waits, work, late = [0.0] * fleet.threads, [], 0.0, 0
    for at, allowed in admitted(arrivals(traffic, dice), fleet.quota):
        start = max(allowed, ready[0])
        took = dice.uniform(0.5, 1.5) * traffic.call_seconds
        heapq.heapreplace(ready, start + took)
        work += took
        if at > WARM_SECONDS:
            waits.append(start - at)
            late += start + took - at > fleet.deadline
    waits.sort()
    return Outcome(
        calls=len(waits),
        wait=waits[len(waits) // 2],
        wait99=waits[int(len(waits) * 0.99)],
        busy=work / HOUR / fleet.threads,
        late=late / len(waits),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=float, default=10.0, help="a second")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a model call")
    parser.add_argument("--threads", type=int, default=80, help="of all workers")
    parser.add_argument("--quota", type=float, default=0.0, help="calls a minute; 0: none")
    given = parser.parse_args()
    found = simulate(
        Traffic(calls=given.calls, call_seconds=given.seconds), Fleet(threads=given.threads, quota=given.quota, deadline=3600.0)
    )
    rows = [
        ("calls", f"{found.calls}", ""),
        ("a call waits", f"{found.wait:.2f} s, 99th percentile {found.wait99:.2f} s", ""),
        ("threads that work", f"{found.busy:.0%}", ""),
        ("calls that end after the deadline", f"{found.late:.1%}", ""),
    ]
    print_report("An hour of the busiest time", rows)


if __name__ == "__main__":
    main()
