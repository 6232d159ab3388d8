"""The checker of `make torture`, on histories made by hand: one that keeps each promise, and for each promise one that does not."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from dataclasses import asdict, fields

import pytest

from tests.torture.checker import PROMISES, Record, check, load
from tests.torture.plan import FAULTS, POISONS, make_plan

SECRET = "whsec_" + base64.b64encode(b"secret of a test").decode()
NOON = 1_700_000_000.0  # seconds: when the last fault was over


def webhook(job: str, status: str, *, event: str, secret: str = SECRET, at: float = NOON, skew: int = 0) -> dict:
    """A call of the receiver, signed as https://www.standardwebhooks.com says."""
    body = json.dumps({"type": f"job.{status}", "data": {"id": job, "status": status}})
    stamp = str(int(at) + skew)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{event}.{stamp}.{body}".encode(), hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    headers = {"webhook-id": event, "webhook-timestamp": stamp, "webhook-signature": f"v1,other {signature}"}
    return {"at": at, "answered": "204", "headers": headers, "body": body}


def job_row(name: str, status: str, *, total: int, done: int, took: float) -> dict:
    return {
        "id": f"id-{name}",
        "key": name,
        "account": "acc",
        "round": 1,
        "status": status,
        "total": total,
        "done": done,
        "created_at": int((NOON - 5) * 1000),
        "finished_at": int((NOON + took) * 1000),
    }


def legs(name: str, *, reserve: int, charge: int) -> list[dict]:
    amounts = {"reserve": reserve, "charge": charge, "release": reserve - charge}
    return [{"account": "acc", "job": f"id-{name}", "round": 1, "kind": kind, "amount": it} for kind, it in amounts.items()]


def accepted(name: str, **more: object) -> dict:
    return {"at": NOON, "job": name, "what": "accepted", "id": f"id-{name}", **more}


@pytest.fixture
def history() -> dict:
    """`good` with three pictures, one of them blocked and one poisoned; `gone`, cancelled with one picture done."""
    good = {"results": [[0, 10]], "errors": [[1, "safety_blocked"], [2, "worker_crashed"]]}
    return {
        "jobs": {
            "good": {"numbers": [10, 11, 12], "cancelled": False, "webhook": True},
            "gone": {"numbers": [20, 21], "cancelled": True, "webhook": False},
        },
        "blocked": [11],
        "poison": {"12": ["worker_crashed"]},
        "baseline": {
            "good": {"results": [[0, 10], [2, 12]], "errors": [[1, "safety_blocked"]]},
            "gone": {"results": [[0, 20], [1, 21]], "errors": []},
        },
        "baseline_calls": [{"outcome": "complete"}, {"outcome": "blocked"}],
        "client": [
            accepted("good"),
            accepted("good", replayed=True),
            accepted("gone"),
            {"at": NOON, "job": "gone", "what": "cancel", "id": "id-gone", "status": 200, "succeeded": 1},
            {
                "at": NOON,
                "job": "good",
                "what": "cancel late",
                "id": "id-good",
                "status": 409,
                "succeeded": None,
                "ended_as": "partial",
            },
        ],
        "seen": {"good": good, "gone": {"results": [[0, 20]], "errors": [[1, "cancelled"]]}},
        "rows": {
            "jobs": [
                job_row("good", "partial", total=3, done=1, took=15),
                job_row("gone", "cancelled", total=2, done=1, took=60),
            ],
            "ledger": [
                {"account": "acc", "job": None, "round": None, "kind": "grant", "amount": 100},
                *legs("good", reserve=13, charge=11),
                *legs("gone", reserve=12, charge=11),
            ],
            "accounts": [{"id": "acc", "available": 78, "held": 0, "charged": 22}],
            "deliveries": [{"job": "id-good", "id": "evt", "state": "delivered", "attempts": []}],
        },
        "calls": [{"outcome": name} for name in ("complete", "blocked", "client gone", "http 429", "http 503", "hung")],
        "received": [
            {**webhook("id-good", "partial", event="evt"), "answered": "500"},
            webhook("id-good", "partial", event="evt", at=NOON + 1),
        ],
        "secrets": {"acc": [SECRET]},
        "scratch": {"after": 3.0, "left": []},
        "faults": [
            {"kind": "kill worker", "at": NOON - 1, "ended": NOON - 1},
            {"kind": "pause worker", "at": NOON - 19, "ended": NOON},
        ],
        "reclaims": [{"step": 7, "process": "worker-1", "seconds": 16.0}],
        "stops": [{"process": "worker-2", "age": 60.0, "seconds": 3.0, "code": 0}],
    }


def broken(values: dict) -> list[str]:
    """The promises that the checker finds broken."""
    return [each.promise for each in check(Record(**values)) if each.faults]


def test_a_history_in_which_all_was_kept_passes(history):
    assert broken(history) == []
    assert len(check(Record(**history))) == len(PROMISES)


def test_a_record_is_checked_again_from_its_file(history, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(asdict(Record(**history))))
    assert check(load(file)) == check(Record(**history))
    assert {field.name for field in fields(Record)} == set(history)


ENDS = "every accepted job ends"
ONE_JOB = "one key is one job"
CHARGED = "one charge and one release a job, of what was processed"
MONEY = "money is conserved"
RIGHT = "no record under a wrong image"
SAME = "every other image is as without faults"
ALONE = "blocked and poisoned images fail alone, with their codes"
CANCELLED = "a cancelled job changes no more, an ended one is not cancelled"
SCRATCH = "scratch is empty 60 s after quiet"
TOLD = "every event is delivered: one id, the same bytes, signed"
RECOVERED = "after the last fault half of the open jobs end in 20 s, all in 90 s"
RECLAIMED = "a dead worker's step is free in 25 s"
STOPPED = "SIGTERM ends a worker in 25 s with code 0"
CALLS = "at most 1.5 times the model calls"

#: promise → what breaks it: a name, the path to a value, and the value (or what makes it of the old one)
DAMAGE = [
    (ENDS, "a job that goes on", ("rows", "jobs", 0, "status"), "running"),
    (ENDS, "a job that the client was promised and nobody has", ("client", 0, "id"), "id-lost"),
    (ENDS, "a request that was never accepted", ("client",), lambda lines: [line for line in lines if line["job"] != "gone"]),
    (ENDS, "an end that the client was never shown", ("seen",), lambda seen: {"good": seen["good"]}),
    (ONE_JOB, "two jobs of one key", ("client", 1, "id"), "id-gone"),
    (ONE_JOB, "a job that nobody sent", ("rows", "jobs", 1, "key"), ""),
    (ONE_JOB, "two rows of one key", ("rows", "jobs"), lambda rows: [*rows, {**rows[0], "id": "id-twin"}]),
    (CHARGED, "two charges", ("rows", "ledger"), lambda rows: [*rows, rows[2]]),
    (CHARGED, "no release", ("rows", "ledger"), lambda rows: [row for row in rows if row["kind"] != "release"]),
    (CHARGED, "more than was reserved", ("rows", "ledger", 3, "amount"), 5),
    (CHARGED, "what was not processed", ("rows", "jobs", 0, "done"), 0),
    (CHARGED, "a failed job", ("rows", "jobs", 0, "status"), "failed"),
    (MONEY, "credits that are held", ("rows", "accounts", 0), {"id": "acc", "available": 68, "held": 10, "charged": 22}),
    (MONEY, "credits that are lost", ("rows", "accounts", 0, "available"), 77),
    (
        MONEY,
        "a charge that the account does not know",
        ("rows", "accounts", 0),
        {"id": "acc", "available": 79, "held": 0, "charged": 21},
    ),
    (RIGHT, "another picture's record", ("seen", "good", "results"), [[0, 11]]),
    (RIGHT, "a record twice", ("seen", "good", "results"), [[0, 10], [0, 10]]),
    (RIGHT, "a record beside a failure", ("seen", "good", "results"), [[0, 10], [1, 11]]),
    (RIGHT, "a record of no image", ("seen", "good", "results"), [[0, 10], [3, 13]]),
    (SAME, "a good image that failed", ("seen", "good"), {"results": [], "errors": [[0, "internal_error"]]}),
    (SAME, "an image without an outcome", ("seen", "good", "results"), []),
    (ALONE, "a blocked image with a record", ("seen", "good", "errors"), [[2, "worker_crashed"]]),
    (ALONE, "a poisoned image with another code", ("seen", "good", "errors"), [[1, "safety_blocked"], [2, "internal_error"]]),
    (CANCELLED, "a cancelled job that went on", ("rows", "jobs", 1, "done"), 2),
    (CANCELLED, "a cancelled job that succeeded", ("rows", "jobs", 1, "status"), "partial"),
    (CANCELLED, "an ended job that was cancelled", ("client", 4, "status"), 200),
    (SCRATCH, "objects that are left", ("scratch",), {"after": None, "left": ["id-good/c0"]}),
    (SCRATCH, "objects that went late", ("scratch", "after"), 61.0),
    (TOLD, "no call", ("received",), []),
    (TOLD, "no call that was taken", ("received",), lambda calls: calls[:1]),
    (TOLD, "two ids", ("received", 0), webhook("id-good", "partial", event="other")),
    (TOLD, "other bytes", ("received", 0, "body"), '{"data": {"id": "id-good"}, "type": "job.partial"}'),
    (TOLD, "another's signature", ("received", 0), webhook("id-good", "partial", event="evt", secret="whsec_b3RoZXI=")),
    (TOLD, "a wrong clock", ("received", 0), webhook("id-good", "partial", event="evt", skew=600)),
    (TOLD, "another end", ("rows", "jobs", 0, "status"), "succeeded"),
    (TOLD, "a delivery given up", ("rows", "deliveries", 0, "state"), "dead"),
    (RECOVERED, "half too late", ("rows", "jobs", 0, "finished_at"), int((NOON + 21) * 1000)),
    (RECOVERED, "the last too late", ("rows", "jobs", 1, "finished_at"), int((NOON + 91) * 1000)),
    (RECOVERED, "never", ("rows", "jobs", 1, "finished_at"), None),
    (RECLAIMED, "late", ("reclaims", 0, "seconds"), 26.0),
    (RECLAIMED, "never", ("reclaims", 0, "seconds"), None),
    (STOPPED, "late", ("stops", 0, "seconds"), 26.0),
    (STOPPED, "killed", ("stops", 0, "code"), -9),
    (STOPPED, "without its handlers", ("stops", 0, "code"), -15),
    (CALLS, "too many", ("calls",), [{"outcome": "complete"}] * 4),
]


@pytest.mark.parametrize(("promise", "name", "path", "value"), DAMAGE, ids=[f"{it[0]}: {it[1]}" for it in DAMAGE])
def test_each_promise_is_seen_to_be_broken(history, promise, name, path, value):
    *way, last = path
    place = damaged = copy.deepcopy(history)
    for step in way:
        place = place[step]
    place[last] = value(place[last]) if callable(value) else value
    assert promise in broken(damaged)


def test_each_promise_has_a_history_that_breaks_it():
    assert {promise for promise, *_ in DAMAGE} == set(PROMISES)


def test_calls_that_the_model_rejected_do_not_count(history):
    history["calls"] = [{"outcome": "http 429"}] * 100 + [{"outcome": "complete"}] * 3
    assert broken(history) == []


def test_a_cancelled_job_need_not_be_as_without_faults(history):
    history["seen"]["gone"] = {"results": [], "errors": [[0, "cancelled"], [1, "cancelled"]]}
    assert SAME not in broken(history)


def test_a_seed_stands_for_one_plan():
    assert make_plan(7, short=False, processes_only=False) == make_plan(7, short=False, processes_only=False)
    assert make_plan(7, short=False, processes_only=False) != make_plan(8, short=False, processes_only=False)


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_has_the_load_and_the_faults_of_the_issue(seed):
    plan = make_plan(seed, short=False, processes_only=False)
    sizes = sorted(len(job.numbers) for job in plan.jobs)
    assert sizes == [4] * 150 + [40] * 40 + [200] * 9 + [3000]
    assert len(plan.blocked) == 140
    assert set(plan.poison.values()) == set(POISONS)
    assert len(plan.faults) == 100
    assert {fault.kind for fault in plan.faults} == {kind for known in FAULTS.values() for kind in known}


@pytest.mark.parametrize("seed", range(5))
def test_a_short_plan_has_faults_of_each_family(seed):
    kinds = {fault.kind for fault in make_plan(seed, short=True, processes_only=False).faults}
    assert all(kinds & set(known) for known in FAULTS.values())
    assert {fault.kind for fault in make_plan(seed, short=True, processes_only=True).faults} == set(FAULTS["process"])
