"""A made-up run of the torture in which everything was right. The tests of the checker damage it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import asdict
from typing import Any

from tests.torture.checker.record import Record
from tests.torture.planned_jobs import Job

NOW = 1_790_000_000.0  #: seconds since 1970: when the last fault was over
SECRET = "whsec_" + base64.b64encode(b"a secret of the account").decode()
RESERVE = {"told": 12, "held": 12, "gone": 12, "hurt": 12, "erased": 11}  #: job → its reserved credits
CHARGE = {"told": 12, "held": 11, "gone": 11, "hurt": 11, "erased": 11}  #: job → its charged credits

Row = dict[str, Any]


def id_of(name: str) -> str:
    return f"id-{name}"


def job(name: str, *numbers: int, **manner: Any) -> Row:
    made = Job(name=name, account=0, at=0.0, numbers=numbers, form="records", **manner)
    return {**asdict(made), "missing": sorted(made.missing)}


def line(what: str, name: str, **more: Any) -> Row:
    """A line of the client."""
    return {"at": NOW, "job": name, "what": what, "try": 0, **more}


def ended(name: str, status: str, processed: int) -> Row:
    more = {"round": 1, "hits": 0, "counts": {}}
    return line("ended", name, id=id_of(name), status=status, credits=CHARGE[name], processed=processed, **more)


def accepted(name: str) -> Row:
    return line("accepted", name, id=id_of(name), replayed=False)


def webhook(name: str, event: str, *, status: str = "succeeded", secret: str = SECRET, at: float = NOW, skew: int = 0) -> Row:
    """A call of the receiver, signed as https://www.standardwebhooks.com says. `skew`: error of its timestamp in seconds."""
    body = json.dumps({"type": f"job.{status}", "data": {"id": id_of(name)}})
    stamp = f"{at + skew:.0f}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{event}.{stamp}.{body}".encode(), hashlib.sha256).digest()
    signature = "v1,other v1," + base64.b64encode(signed).decode()
    headers = {"webhook-id": event, "webhook-timestamp": stamp, "webhook-signature": signature}
    return {"at": at, "answered": "204", "mode": "up", "headers": headers, "body": body}


def legs(name: str, *, reserve: int = 0, charge: int = 0) -> list[Row]:
    """The job's three rows of the ledger."""
    reserve, charge = reserve or RESERVE[name], charge or CHARGE[name]
    amounts = {"reserve": reserve, "charge": charge, "release": reserve - charge}
    return [
        {"account": "acc", "job": id_of(name), "round": 1, "kind": kind, "amount": amount} for kind, amount in amounts.items()
    ]


def job_row(name: str, status: str, *, done: int, took: float) -> Row:
    """A row of a job that was open when the last fault was over, and that ended `took` seconds later."""
    times = {"created_at": (NOW - 9) * 1000, "finished_at": (NOW + took) * 1000}
    named = {"phase": "run", "name": name, "try": 0, "account": "acc"}
    return {"id": id_of(name), "round": 1, "status": status, "total": 2, "credits": CHARGE[name], "done": done, **times, **named}


def whole() -> Record:
    """The run. Its jobs are these:

    - `told` has a webhook, its events are read, and a cancel after its end was refused;
    - for `held` a caller waited, without a key, and the model blocks its second image;
    - `gone` is cancelled with one image done;
    - `hurt` has a picture that kills its worker;
    - `erased` is deleted after its end.
    """
    seen = {
        "told": {"results": [[0, 1], [1, 2]], "errors": []},
        "held": {"results": [[0, 3]], "errors": [[1, "safety_blocked"]]},
        "gone": {"results": [[0, 5]], "errors": [[1, "cancelled"]]},
        "hurt": {"results": [[0, 7]], "errors": [[1, "worker_crashed"]]},
        "erased": {"results": [[0, 9]], "errors": []},
    }
    sound = {"gone": {"results": [[0, 5], [1, 6]], "errors": []}, "hurt": {"results": [[0, 7], [1, 8]], "errors": []}}
    delivery = {"id": "evt", "job": "id-told", "round": 1, "account": "acc", "state": "delivered", "event": "job.succeeded"}
    has = {"available": 944, "held": 0, "charged": 56}
    told = {"id": "id-told", "round": 1, "failed": 0}
    return Record(
        jobs={
            "told": job("told", 1, 2, webhook=True, streams=True, cancel_late=True),
            "held": job("held", 3, 4, waits=True, keyed=False),
            "gone": job("gone", 5, 6, cancel_after=1.0),
            "hurt": job("hurt", 7, 8),
            "erased": job("erased", 9, delete="ended"),
        },
        blocked=[4],
        poison={"8": ["worker_crashed"]},
        granted={"acc": 1000},
        base_client=[],
        baseline={name: {key: [*rows] for key, rows in sound.get(name, seen[name]).items()} for name in seen},
        baseline_calls=[{"at": 1.0, "numbers": [1, 2], "outcome": "complete"}, {"at": 1.0, "numbers": [4], "outcome": "blocked"}],
        client=[
            accepted("told"),
            accepted("told"),
            line("event", "told", **told, status="running", succeeded=1),
            line("event", "told", **told, status="succeeded", succeeded=2),
            ended("told", "succeeded", 2),
            line("cancel late", "told", id="id-told", status=409, succeeded=None, ended_as="succeeded"),
            line(
                "answered", "held", credits=11, processed=1, status="", body={key: [*rows] for key, rows in seen["held"].items()}
            ),
            accepted("held"),
            ended("held", "partial", 1),
            accepted("gone"),
            line("cancel", "gone", id="id-gone", status=200, succeeded=1),
            ended("gone", "cancelled", 1),
            accepted("hurt"),
            ended("hurt", "partial", 1),
            accepted("erased"),
            ended("erased", "succeeded", 1),
            line("deleted", "erased", id="id-erased", status=204),
            line("looked after delete", "erased", id="id-erased", status=404),
        ],
        seen=seen,
        shown_balances={"acc": dict(has)},
        rows={
            "jobs": [
                job_row("told", "succeeded", done=2, took=15),
                job_row("held", "partial", done=1, took=16),
                job_row("gone", "cancelled", done=1, took=60),
                job_row("hurt", "partial", done=1, took=61),
            ],
            "ledger": [
                {"account": "acc", "job": None, "round": None, "kind": "grant", "amount": 1000},
                *(leg for name in CHARGE for leg in legs(name)),
            ],
            "accounts": [{"id": "acc", **has}],
            "deliveries": [delivery],
            "steps": [],
        },
        calls=[
            {"at": 2.0, "numbers": [1, 2], "outcome": outcome}
            for outcome in ("complete", "blocked", "client gone", "http 429", "http 503", "hung")
        ],
        received=[{**webhook("told", "evt"), "answered": "500"}, webhook("told", "evt", at=NOW + 1)],
        secrets={"acc": [SECRET]},
        pace={"seconds": 100.0, "images": 200, "left": 0},
        scratch={"after": 0.0, "ended": 0, "unknown": 0, "owners": 0, "left": []},
        planned={"kill worker": 1, "pause worker": 1},
        faults=[
            {"kind": "kill worker", "at": NOW - 1, "ended": NOW - 1, "what": "worker-1", "hits": 1},
            {"kind": "pause worker", "at": NOW - 19, "ended": NOW, "what": "worker-2", "hits": 1},
        ],
        reclaims=[{"step": 7, "process": "worker-1", "since": NOW - 1, "seconds": 16.0}],
        locked=[],
        stops=[{"process": "worker-2", "at": NOW - 20, "age": 60.0, "seconds": 3.0, "code": 0}],
        deaths=[],
        attacks={},
        clocks=1,
    )
