"""Sums up the trips of single requests by stage, from the files of bench/counted.py and the times of the client and of the fake model."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bench.counted import Trip

STAGES = ("door", "wake", "claim", "stage", "ask", "close", "answer", "clean")
COUNTED = ("transactions", "statements", "SQL trips", "S3", "Redis")


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """The times of one request, by time.monotonic()."""

    sent: float
    asked: float  #: the model has the call
    replied: float  #: the model's answer was sent
    answered: float  #: the client has the answer
    next: float  #: the next request was sent, or nothing more is expected


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What one request took."""

    ms: dict[str, float]  #: stage → milliseconds. `clean` begins when the job has ended, beside `answer`
    counts: dict[str, Counter[str]]  #: stage → how many trips of each kind of COUNTED
    names: Counter[str]  #: stage and name of each trip


def profile(trips: Sequence[Trip], times: Times) -> Profile:
    """Sorts the trips of one request into its stages."""
    mine = [trip for trip in trips if times.sent <= trip.at < times.next and trip.role != "supervisor"]  # it works for no request
    web = [trip for trip in mine if trip.role == "web"]
    worker = [trip for trip in mine if trip.role == "worker"]
    accepted = _commit_after(web, "INSERT jobs")
    begun = next(trip.at for trip in worker if trip.at > times.sent and trip.kind != "redis")
    claimed = _claimed(worker, asked=times.asked)
    closed = _commit_after(worker, "INSERT ledger")
    # A worker may begin before the job is committed. What two stages do at the same time counts for the first of them.
    order = ("door", "wake", "claim", "stage", "ask", "close", "answer")
    when = (accepted, begun, claimed, times.asked, times.replied, closed, times.answered)
    ends = dict(zip(order, accumulate(when, max), strict=True))
    starts = dict(zip(ends, (times.sent, *ends.values()), strict=False))
    ms = {stage: (ends[stage] - starts[stage]) * 1000 for stage in ends}
    last = max((trip.at for trip in worker), default=closed)
    ms["clean"] = max(last - closed, 0.0) * 1000
    counts = {stage: Counter[str]() for stage in STAGES}
    names = Counter[str]()
    for trip in mine:
        stage = _stage(trip, ends)
        for counted in _counted(trip):
            counts[stage][counted] += 1
        names[f"{stage}: {trip.kind} {trip.name}".rstrip()] += 1
    return Profile(ms=ms, counts=counts, names=names)


def _stage(trip: Trip, ends: dict[str, float]) -> str:
    if trip.role == "web":
        return "door" if trip.at <= ends["door"] else "answer"
    if trip.at > ends["close"]:
        return "clean"
    return next(stage for stage in ("claim", "stage", "ask", "close") if trip.at <= ends[stage])


def _counted(trip: Trip) -> Iterable[str]:
    if trip.kind == "s3":
        return ("S3",)
    if trip.kind == "redis":
        return ("Redis",)
    if trip.kind == "statement":
        return ("statements", "SQL trips")
    if trip.kind == "transaction":  # its BEGIN and its COMMIT
        return ("transactions",) if trip.name == "autocommit" else ("transactions", "SQL trips", "SQL trips")
    return ("SQL trips",) if trip.kind == "ping" else ()


def _claimed(trips: Sequence[Trip], *, asked: float) -> float:
    """When the step was claimed. With Postgres that is one statement, and the worker may have looked in vain before."""
    looks = [trip for trip in trips if trip.name == "WITH jobs" and trip.at < asked]
    return (
        _commit_after([trip for trip in trips if trip.at >= looks[-1].at], "WITH jobs")
        if looks
        else _commit_after(trips, "UPDATE steps")
    )


def _commit_after(trips: Sequence[Trip], name: str) -> float:
    """When the transaction with this statement was committed."""
    at = next(trip.at for trip in trips if trip.name == name)
    return next(trip.at for trip in trips if trip.kind == "commit" and trip.at > at)


def rows(profiles: Sequence[Profile]) -> list[tuple[str, ...]]:
    """For each stage, and for all: the median milliseconds, and the mean number of each kind of trip."""

    def means(stages: Iterable[str]) -> tuple[str, ...]:
        stages = tuple(stages)
        return tuple(
            f"{statistics.mean(sum(one.counts[stage][kind] for stage in stages) for one in profiles):.1f}" for kind in COUNTED
        )

    each = [(stage, f"{statistics.median(one.ms[stage] for one in profiles):.1f}", *means([stage])) for stage in STAGES]
    total = statistics.median(sum(one.ms[stage] for stage in STAGES if stage != "clean") for one in profiles)
    before = ("until the answer", f"{total:.1f}", *means(stage for stage in STAGES if stage != "clean"))
    return [*each, before, ("all", "", *means(STAGES))]
