"""Damages to the made-up run, and the promises that each one breaks. They are for test_checker.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.torture.checker.record import Record
from tests.unit.torture.made_up import NOW, legs, line, webhook

PLANNED = "without faults everything is as planned"
ENDS = "every accepted job ends"
ONE_JOB = "one key is one job"
REFUSED = "what is refused is not made"
CHARGED = "one charge and one release a round, of what was processed"
SHOWN = "what is charged is what was shown"
MONEY = "money is conserved, and only what was granted is there"
RIGHT = "no record under a wrong image"
SAME = "every other image is as without faults"
ALONE = "blocked and poisoned images fail alone, with their codes"
BODIES = "a caller that waits gets its own job's results"
STREAMS = "a stream of events goes forward to the end"
CANCELLED = "a cancelled job changes no more, an ended one is not cancelled"
DELETED = "a deleted job is gone"
SCRATCH = "scratch holds only what the sweep deletes"
TOLD = "every event that was asked for arrives, signed, and no other"
RECOVERED = "after the last fault half of the open jobs end in 20 s, all in 90 s, and the time of their images without faults"
RECLAIMED = "a dead worker's step is free in 25 s"
STOPPED = "SIGTERM ends a worker in 25 s with code 0"
CALLS = "at most 1.5 times the model calls"
LIVED = "no process dies by itself"
FAULTS = "every planned kind of fault happened"
LOAD = "every planned kind of request happened"

Way = tuple[str | int, ...]  #: the path to a value of the record: a field's name, then keys and places
JOBS, LEDGER, ACCOUNT = ("rows", "jobs"), ("rows", "ledger"), ("rows", "accounts", 0)
ROW = {name: (*JOBS, place) for place, name in enumerate(("told", "held", "gone", "hurt"))}
CLIENT_LINES = (
    "told",
    "told again",
    "running",
    "succeeded",
    "told ended",
    "cancel late",
    "answered",
    "held",
    "held ended",
    "gone",
)
CLIENT_LINES += ("cancel", "gone ended", "hurt", "hurt ended", "erased", "erased ended", "deleted", "looked")
LINE: dict[str, Way] = {name: ("client", place) for place, name in enumerate(CLIENT_LINES)}


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    promise: str  #: the promise that is broken
    name: str  #: what happened
    changes: tuple[tuple[Way, Any], ...]  #: the way to a value, and the value; a function makes it from the old one
    also: frozenset[str] = frozenset()  #: other promises that the same damage breaks

    def of(self, record: Record) -> Record:
        """The record with the damage. The given one is not changed."""
        values: Any = asdict(record)
        for (*way, last), value in self.changes:
            place = values
            for step in way:
                place = place[step]
            place[last] = value(place[last]) if callable(value) else value
        return Record(**values)


def broken(promise: str, name: str, *changes: tuple[Way, Any], also: set[str] | None = None) -> History:
    return History(promise=promise, name=name, changes=changes, also=frozenset(also or ()))


def without(index: int) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: rows[:index] + rows[index + 1 :]


def plus(*more: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [*rows, *more]


def less(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {key: value for key, value in values.items() if key != name}


def balance(available: int, held: int, charged: int, *, shown: bool = True) -> tuple[tuple[Way, Any], ...]:
    """The account's balance, which the API shows also."""
    has = {"available": available, "held": held, "charged": charged}
    row = (ACCOUNT, {"id": "acc", **has})
    return (row, (("shown_balances", "acc"), has)) if shown else (row,)


def leg(name: str, kind: str, amount: int) -> dict[str, Any]:
    return {"account": "acc", "job": f"id-{name}", "round": 1, "kind": kind, "amount": amount}


HISTORIES = [
    broken(
        PLANNED,
        "the same record is lost in both runs",
        *[((run, "told", "results"), [[0, 1]]) for run in ("baseline", "seen")],
        also={SAME},
    ),
    broken(PLANNED, "a job had no results without faults", (("baseline",), less("gone"))),
    broken(PLANNED, "without faults there was an image too many", (("baseline", "told", "errors"), [[2, "internal_error"]])),
    broken(
        PLANNED,
        "without faults a blocked image had a record",
        (("baseline", "held"), {"results": [[0, 3], [1, 4]], "errors": []}),
    ),
    broken(ENDS, "a job goes on", ((*ROW["hurt"], "status"), "running")),
    broken(ENDS, "a job that the client was promised is not there", ((*LINE["hurt"], "id"), "id-lost")),
    broken(ENDS, "a request was never accepted", (("client",), without(12))),
    broken(ENDS, "an end was not shown to the client", (("seen",), less("erased")), also={SAME}),
    broken(ONE_JOB, "two jobs have one key", ((*LINE["told again"], "id"), "id-gone")),
    broken(ONE_JOB, "a job came of no request", ((*ROW["gone"], "phase"), "")),
    broken(ONE_JOB, "a job is not in the plan", ((*ROW["gone"], "name"), "other")),
    broken(ONE_JOB, "two rows have one key", (JOBS, lambda rows: [*rows, {**rows[2], "id": "id-twin"}]), also={CHARGED}),
    broken(
        REFUSED, "a refused request became a job", (("client",), plus(line("refused", "held", status=503, code="unavailable")))
    ),
    broken(CHARGED, "a round is charged twice", (LEDGER, plus(leg("hurt", "charge", 11))), *balance(933, 0, 67), also={SHOWN}),
    broken(CHARGED, "a round has no release", (LEDGER, without(12))),
    broken(CHARGED, "the legs do not add up", ((*LEDGER, 12, "amount"), 2)),
    broken(CHARGED, "the charge is not of what was processed", ((*ROW["hurt"], "done"), 0)),
    broken(CHARGED, "a failed job is charged", ((*ROW["hurt"], "status"), "failed")),
    broken(CHARGED, "the row's price is not the ledger's", ((*ROW["hurt"], "credits"), 12)),
    broken(CHARGED, "the ledger has a round less than the job", ((*ROW["hurt"], "round"), 2)),
    broken(
        CHARGED,
        "a job that nobody asked for is charged",
        (LEDGER, plus(*legs("other", reserve=12, charge=12))),
        *balance(932, 0, 68),
    ),
    broken(
        SHOWN, "less was shown than is charged", ((*LINE["told ended"], "credits"), 11), ((*LINE["told ended"], "processed"), 1)
    ),
    broken(SHOWN, "a caller that waited was shown a wrong price", ((*LINE["answered"], "credits"), 12)),
    broken(SHOWN, "the price is not of what was shown as processed", ((*LINE["hurt ended"], "processed"), 2)),
    broken(SHOWN, "a job that was answered is not known", ((*LINE["held"], "what"), "lost"), also={ENDS}),
    broken(MONEY, "credits stay held", *balance(934, 10, 56)),
    broken(MONEY, "credits are lost", *balance(943, 0, 56)),
    broken(MONEY, "the account does not know a charge", *balance(945, 0, 55)),
    broken(MONEY, "credits were granted by nobody", ((*LEDGER, 0, "amount"), 1050), *balance(994, 0, 56)),
    broken(MONEY, "the API shows another balance", *balance(944, 0, 56), (("shown_balances", "acc", "available"), 943)),
    broken(MONEY, "an account is gone", (("rows", "accounts"), [])),
    broken(RIGHT, "an image has another picture's record", (("seen", "gone", "results"), [[0, 6]])),
    broken(RIGHT, "an image has two records", (("seen", "gone", "results"), [[0, 5], [0, 5]])),
    broken(RIGHT, "an image has a record and a failure", (("seen", "gone", "results"), [[0, 5], [1, 6]])),
    broken(RIGHT, "a record is of no image", (("seen", "gone", "results"), [[0, 5], [2, 7]])),
    broken(SAME, "a good image failed", (("seen", "told"), {"results": [[0, 1]], "errors": [[1, "internal_error"]]})),
    broken(SAME, "an image has no outcome", (("seen", "told", "results"), [[0, 1]])),
    broken(
        SAME,
        "an image failed because the model was away, and no caller waited",
        (("seen", "erased"), {"results": [], "errors": [[0, "model_unavailable"]]}),
    ),
    broken(
        ALONE,
        "a blocked image has no outcome",
        (("seen", "held", "errors"), []),
        (("client", 6, "body", "errors"), []),
        also={BODIES},
    ),
    broken(ALONE, "a poisoned image has another code", (("seen", "hurt", "errors"), [[1, "internal_error"]])),
    broken(ALONE, "a poisoned image has no outcome", (("seen", "hurt", "errors"), [])),
    broken(BODIES, "the answer has another job's results", ((*LINE["answered"], "body", "results"), [[0, 1]])),
    broken(BODIES, "the answer lacks an image", ((*LINE["answered"], "body", "errors"), [])),
    broken(BODIES, "the answer says more images than it has", ((*LINE["answered"], "processed"), 2), also={SHOWN}),
    broken(BODIES, "the job later has another result", ((*LINE["answered"], "body", "errors"), [[1, "internal_error"]])),
    broken(STREAMS, "a stream shows another job", ((*LINE["running"], "id"), "id-gone")),
    broken(STREAMS, "a stream goes back", ((*LINE["running"], "succeeded"), 3)),
    broken(STREAMS, "a stream ends with another status", ((*LINE["succeeded"], "status"), "running")),
    broken(
        STREAMS, "a stream shows nothing", *[((*LINE[name], "what"), "silent") for name in ("running", "succeeded")], also={LOAD}
    ),
    broken(CANCELLED, "a cancelled job went on", ((*LINE["cancel"], "succeeded"), 0)),
    broken(CANCELLED, "a cancelled job succeeded", ((*ROW["gone"], "status"), "partial")),
    broken(CANCELLED, "an ended job was cancelled", ((*LINE["cancel late"], "status"), 404)),
    broken(DELETED, "a deleted job is shown", ((*LINE["looked"], "status"), 200)),
    broken(
        DELETED,
        "a step of a deleted job is left",
        (("rows", "steps"), [{"job": "id-erased", "epoch": 1, "expiries": 0, "deaths": 0}]),
    ),
    broken(DELETED, "a job that should be deleted was not", (("jobs", "hurt", "delete"), "ended")),
    broken(SCRATCH, "the sweep leaves an object", (("scratch", "left"), ["id-told/0-1"])),
    broken(
        SCRATCH,
        "more objects wait for the sweep than steps were interrupted",
        (("scratch", "ended"), 2),
        (("scratch", "after"), None),
    ),
    broken(
        SCRATCH,
        "objects of more requests wait for the sweep than were broken",
        (("scratch", "owners"), 1),
        (("scratch", "after"), None),
    ),
    broken(TOLD, "an event did not arrive", (("received",), [])),
    broken(TOLD, "an event was not taken", (("received",), without(1))),
    broken(TOLD, "an event came with another id", (("received", 0), webhook("told", "other"))),
    broken(TOLD, "an event came with other bytes", (("received", 0), webhook("told", "evt", status="partial"))),
    broken(TOLD, "an event has another's signature", (("received", 0), webhook("told", "evt", secret="whsec_b3RoZXI="))),
    broken(TOLD, "an event has a wrong time", (("received", 0), webhook("told", "evt", skew=600))),
    broken(TOLD, "an event says another end", (("rows", "deliveries", 0, "event"), "job.partial")),
    broken(TOLD, "an event was given up", (("rows", "deliveries", 0, "state"), "dead")),
    broken(TOLD, "an event is missing", (("rows", "deliveries"), []), (("received",), [])),
    broken(TOLD, "an event is of no job", (("received",), plus(webhook("other", "evt-2")))),
    broken(
        TOLD,
        "an event was not asked for",
        (("rows", "deliveries"), lambda rows: [*rows, {**rows[0], "id": "evt-2", "job": "id-held", "event": "job.partial"}]),
        (("received",), plus(webhook("held", "evt-2", status="partial"))),
    ),
    broken(
        RECOVERED,
        "half of the jobs end too late",
        *[((*ROW[name], "finished_at"), (NOW + 21) * 1000) for name in ("told", "held")],
    ),
    broken(RECOVERED, "the last job ends too late", ((*ROW["hurt"], "finished_at"), (NOW + 91) * 1000)),
    broken(RECOVERED, "a job has no end", ((*ROW["hurt"], "finished_at"), None)),
    broken(RECLAIMED, "a step is free too late", (("reclaims", 0, "seconds"), 26.0)),
    broken(RECLAIMED, "a step is never free", (("reclaims", 0, "seconds"), None)),
    broken(STOPPED, "a worker ends too late", (("stops", 0, "seconds"), 26.0)),
    broken(STOPPED, "a worker must be killed", (("stops", 0, "code"), None)),
    broken(STOPPED, "a worker ends without its handlers", (("stops", 0, "code"), -15)),
    broken(CALLS, "the model is asked too often", (("calls",), [{"at": NOW, "numbers": [1], "outcome": "complete"}] * 4)),
    broken(LIVED, "a process dies", (("deaths",), [{"at": NOW, "process": "worker-1", "code": -11, "said": []}])),
    broken(FAULTS, "a planned fault has no effect", (("faults", 0, "hits"), 0)),
    broken(FAULTS, "a planned fault does not begin", (("faults",), without(0))),
    broken(LOAD, "no image comes from the cache", (("jobs", "hurt", "cache"), True)),
    broken(LOAD, "no job is retried", (("jobs", "hurt", "missing"), [7])),
    broken(LOAD, "a misbehaviour does not happen", (("attacks",), {"slow bodies": 0})),
]
