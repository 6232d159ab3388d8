"""Promises about times and amounts: recovery, reclaiming, stopping, scratch, and the number of model calls."""

from __future__ import annotations

import math
import signal

from tests.torture.checker.record import Looked, Record, Row, of_phase, windows

HALF_SECONDS, ALL_SECONDS = 20.0, 90.0
RECLAIM_SECONDS = 25.0
STOP_SECONDS = 25.0
START_SECONDS = 10.0  #: a younger process may not have installed its signal handlers yet, and holds no steps
QUIET_SECONDS = 60.0
MOST_CALLS = 1.5  #: largest ratio of model calls, with faults to without faults
REJECTED = {"http 429", "http 500", "http 503", "hung"}  #: outcomes of calls that the model did not process
#: While these last, no supervisor can reclaim a step: there is none, or it does not reach the database.
NOT_RECLAIMING = (
    "away supervisor",
    "outage postgres",
    "full database",
    "stall postgres",
    "partition supervisor",
    "cut off postgres",
    "reboot postgres",
)
BACK_SECONDS = 5.0  #: after them, a supervisor starts or connects again


def scratch_empty(record: Record) -> Looked:
    """Scratch holds nothing of a job that has ended, except what died with its worker, and the sweep deletes that."""
    scratch = record.scratch
    faults = [f"the sweep leaves {len(scratch['left'])} objects: {scratch['left'][:5]}"] if scratch["left"] else []
    stragglers = sum(step["epoch"] > 1 for step in record.rows["steps"]) + len(record.reclaims)
    if scratch["ended"] > stragglers:
        faults.append(
            f"{scratch['ended']} objects of jobs that have ended wait for the sweep; {stragglers} steps were interrupted"
        )
    broken = sum(line["what"] in {"unknown", "refused"} for line in record.client)
    if scratch["owners"] > broken + sum(record.attacks.values()):
        faults.append(f"objects of {scratch['owners']} unknown requests wait for the sweep; {broken} requests had no clear end")
    if scratch["after"] is None:
        seen = f"{scratch['ended']} objects of ended jobs and {scratch['unknown']} of broken requests were left to the sweep"
    else:
        seen = f"empty {scratch['after']:.0f} s after quiet"
    return seen, faults


def allowance(pace: Row) -> float:
    """Seconds in which the images that were left when the last fault was over have their outcome without faults.

    They are reckoned from the load without faults of the same run. A minute's outage of each part leaves hundreds to thousands of
    images, so that the time for them is the machine's and not the recovery's.
    """
    return float(pace["left"] * pace["seconds"] / pace["images"])


def recovered(record: Record) -> Looked:
    """The time that the images left take without faults does not count."""
    last = max((fault["ended"] for fault in record.faults), default=None)
    if last is None:
        return "no faults", []
    took = sorted(
        row["finished_at"] / 1000 - last if row["finished_at"] else math.inf
        for row in of_phase(record)
        if row["created_at"] / 1000 <= last and (not row["finished_at"] or row["finished_at"] / 1000 > last)
    )
    if not took:
        return "no job was open then", []
    half = took[max(len(took) // 2 - 1, 0)] if len(took) > 1 else 0.0
    work = allowance(record.pace)
    beside = f"without faults their {record.pace['left']} images take {work:.0f} s"
    faults = [f"half of {len(took)} open jobs ended after {half:.0f} s; {beside}"] if half > HALF_SECONDS + work else []
    faults += (
        [f"the last of {len(took)} open jobs ended after {took[-1]:.0f} s; {beside}"] if took[-1] > ALL_SECONDS + work else []
    )
    return f"{len(took)} open then: half in {half:.0f} s, all in {took[-1]:.0f} s; {beside}", faults


def reclaimed(record: Record) -> Looked:
    """The time in which no supervisor could work or write does not count."""
    away = [*windows(record, *NOT_RECLAIMING), *record.locked]
    took = []
    faults = []
    for row in record.reclaims:
        seconds = math.inf if row["seconds"] is None else row["seconds"] - _overlap(row["since"], row["seconds"], away)
        took.append(seconds)
        if seconds > RECLAIM_SECONDS:
            faults.append(f"step {row['step']} of {row['process']} was free after {seconds:.0f} s")
    return f"{len(took)} steps, the slowest after {max(took, default=0):.0f} s", faults


def _overlap(since: float, seconds: float, away: list[tuple[float, float]]) -> float:
    """How much of the time from `since` on lies in one of the windows."""
    overlap, reached = 0.0, since
    for start, end in sorted(away):
        first, last = max(start, reached), min(end + BACK_SECONDS, since + seconds)
        overlap += max(last - first, 0.0)
        reached = max(reached, last)
    return overlap


def stopped(record: Record) -> Looked:
    """The time in which a process could not write its steps does not count."""
    took = [max(stop["seconds"] - _overlap(stop["at"], stop["seconds"], record.locked), 0.0) for stop in record.stops]
    faults = [
        f"{stop['process']} ended {seconds:.0f} s after SIGTERM with code {stop['code']}"
        for stop, seconds in zip(record.stops, took, strict=True)
        if seconds > STOP_SECONDS or stop["code"] not in ({0, -signal.SIGTERM} if stop["age"] < START_SECONDS else {0})
    ]
    return f"{len(took)} deploys, the slowest in {max(took, default=0):.0f} s", faults


def few_calls(record: Record) -> Looked:
    before, now = (sum(call["outcome"] not in REJECTED for call in calls) for calls in (record.baseline_calls, record.calls))
    ratio = now / before if before else math.inf
    seen = f"{now} for {before}: {ratio:.2f} times; {len(record.calls) - now} more were rejected"
    return seen, [f"{ratio:.2f} times as many model calls"] if ratio > MOST_CALLS else []
