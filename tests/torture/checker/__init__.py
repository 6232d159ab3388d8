"""Checks from the record of a run whether the service kept its promises: `python -m tests.torture.checker RECORD`.

It is pure: it uses no process and no clock. RECORD is the JSON file that a run writes; `Record` describes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.torture.checker import coverage, events, images, jobs, money, times
from tests.torture.checker.record import Looked, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The check of one promise. The promise was kept if `faults` is empty."""

    promise: str
    seen: str
    faults: list[str]


PROMISES: dict[str, Callable[[Record], Looked]] = {
    "without faults everything is as planned": images.baseline_as_planned,
    "every accepted job ends": jobs.ended,
    "one key is one job": jobs.same_job,
    "what is refused is not made": jobs.refused_is_nothing,
    "one charge and one release a round, of what was processed": money.charged_once,
    "what is charged is what was shown": money.shown_is_charged,
    "money is conserved, and only what was granted is there": money.money,
    "no record under a wrong image": images.right_image,
    "every other image is as without faults": images.as_without_faults,
    "blocked and poisoned images fail alone, with their codes": images.fails_alone,
    "a caller that waits gets its own job's results": images.waiting_bodies,
    "a stream of events goes forward to the end": jobs.streams,
    "a cancelled job changes no more, an ended one is not cancelled": jobs.cancelled_for_good,
    "a deleted job is gone": jobs.deleted_for_good,
    "scratch holds only what the sweep deletes": times.scratch_empty,
    "every event that was asked for arrives, signed, and no other": events.told,
    f"after the last fault half of the open jobs end in {times.HALF_SECONDS:g} s, all in {times.ALL_SECONDS:g} s, and the time of"
    " their images without faults": times.recovered,
    f"a dead worker's step is free in {times.RECLAIM_SECONDS:g} s": times.reclaimed,
    f"SIGTERM ends a worker in {times.STOP_SECONDS:g} s with code 0": times.stopped,
    f"at most {times.MOST_CALLS:g} times the model calls": times.few_calls,
    "no process dies by itself": coverage.lived,
    "every planned kind of fault happened": coverage.every_fault,
    "every planned kind of request happened": coverage.every_load,
}


def check(record: Record) -> list[Check]:
    """Checks every promise against the record."""
    return [
        Check(promise=promise, seen=seen, faults=faults) for promise, look in PROMISES.items() for seen, faults in [look(record)]
    ]


def happened(record: Record) -> dict[str, Any]:
    """Statistics that show how hard the run was. No promise depends on them."""
    steps = record.rows["steps"]
    hits: Counter[str] = Counter()
    for fault in record.faults:
        hits[fault["kind"]] += fault["hits"]
    return {
        "faults": len(record.faults),
        "faults not done": [f"{fault['kind']}: {fault['what']}" for fault in record.faults if not fault["hits"]],
        "hits": dict(sorted(hits.items())),
        "steps that were claimed again": sum(step["epoch"] > 1 for step in steps),
        "steps whose lease ran out": sum(step["expiries"] > 0 for step in steps),
        "deaths of steps that ran alone": sum(step["deaths"] for step in steps),
        "clocks found to differ from that of S3": record.clocks,
        "model calls": {str(what): count for what, count in Counter(call["outcome"] for call in record.calls).items()},
        "client": dict(Counter(line["what"] for line in record.client)),
        "refusals": dict(Counter(f"{line['status']} {line['code']}" for line in record.client if line["what"] == "refused")),
        "misbehaviour": record.attacks,
    }
