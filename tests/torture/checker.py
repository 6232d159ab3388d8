"""Checks from the record of a run whether the service kept its promises: `python -m tests.torture.checker RECORD`.

It is pure: it uses no process and no clock. RECORD is the JSON file that a run writes; `Record` describes it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Row = dict[str, Any]

HALF_SECONDS, ALL_SECONDS = 20.0, 90.0
RECLAIM_SECONDS = 25.0
STOP_SECONDS = 25.0
START_SECONDS = 10.0  #: a younger process may not have installed its signal handlers yet, and holds no steps
QUIET_SECONDS = 60.0
MOST_CALLS = 1.5  #: largest ratio of model calls, with faults to without faults
CLOCK_SECONDS = 60  #: largest error of a webhook's timestamp
ENDED = {"succeeded", "partial", "failed", "cancelled"}
REJECTED = {"http 429", "http 500", "http 503", "hung"}  #: outcomes of calls that the model did not process
BASE = 10  #: base price of a job in credits


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The plan of a run, and what each part saw. Times are seconds since 1970, except in `rows`, which has milliseconds."""

    jobs: dict[str, Row]  #: name → numbers (of its pictures, in order), cancelled, webhook
    blocked: list[int]  #: numbers of the pictures that the model refuses
    poison: dict[str, list[str]]  #: a picture's number → the codes it may fail with
    baseline: dict[str, Row]  #: name → results [[index, value]] and errors [[index, code]] for the client, without faults
    baseline_calls: list[Row]  #: each model call without faults: outcome
    client: list[Row]  #: the client's events: at, job, what (accepted, cancel, cancel late), id, status, succeeded
    seen: dict[str, Row]  #: the same as `baseline`, under faults
    rows: dict[str, list[Row]]  #: rows of the tables at the end: jobs (with key and done), ledger, accounts, deliveries
    calls: list[Row]  #: each model call under faults
    received: list[Row]  #: each call of the webhook receiver: at, headers, body
    secrets: dict[str, list[str]]  #: account → the secrets that sign its webhooks
    scratch: Row  #: after (seconds from quiet until scratch was empty, or None), left (names)
    faults: list[Row]  #: the faults that were injected: kind, at, ended
    reclaims: list[Row]  #: the steps that a dead or paused process held: step, process, seconds until reclaimed, or None
    stops: list[Row]  #: the processes that got SIGTERM: process, age (seconds since its start), seconds, code


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The check of one promise. The promise was kept if `faults` is empty."""

    promise: str
    seen: str
    faults: list[str]


def check(record: Record) -> list[Check]:
    """Checks every promise against the record."""
    return [
        Check(promise=promise, seen=seen, faults=faults) for promise, look in PROMISES.items() for seen, faults in [look(record)]
    ]


Looked = tuple[str, list[str]]


def ended(record: Record) -> Looked:
    rows = {row["id"]: row for row in record.rows["jobs"]}
    accepted = {line["job"] for line in record.client if line["what"] == "accepted"}
    faults = [f"{name} was never accepted" for name in record.jobs if name not in accepted]
    for line in record.client:
        if line["what"] == "accepted" and line["id"] not in rows:
            faults.append(f"{line['job']} was accepted as {line['id']}, and is not there")
    faults += [f"{row['key']} ({row['id']}) is {row['status']}" for row in rows.values() if row["status"] not in ENDED]
    faults += [f"the client did not see the end of {name}" for name in accepted if name not in record.seen]
    return f"{sum(row['status'] in ENDED for row in rows.values())} of {len(rows)} jobs ended", faults


def same_job(record: Record) -> Looked:
    ids: dict[str, set[str]] = defaultdict(set)
    posts = Counter(line["job"] for line in record.client if line["what"] == "accepted")
    for line in record.client:
        if line["what"] == "accepted":
            ids[line["job"]].add(line["id"])
    faults = [f"{name} became {sorted(found)}" for name, found in ids.items() if len(found) > 1]
    faults += [f"job {row['id']} came of no request" for row in record.rows["jobs"] if row["key"] not in record.jobs]
    times = Counter(row["key"] for row in record.rows["jobs"])
    faults += [f"{key} has {count} jobs" for key, count in times.items() if count > 1 and key in record.jobs]
    return f"{posts.total()} answers for {len(ids)} keys", faults


def charged_once(record: Record) -> Looked:
    legs: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
    for row in record.rows["ledger"]:
        if row["job"]:
            legs[row["job"], row["round"]].append((row["kind"], row["amount"]))
    faults = []
    for row in record.rows["jobs"]:
        found = legs[row["id"], row["round"]]
        if row["status"] in ENDED:
            faults += _legs_faults(row, found)
        if [kind for kind, _ in found].count("reserve") != 1:
            faults.append(f"{row['key']} has not one reserve row")
    charged = sum(amount for found in legs.values() for kind, amount in found if kind == "charge")
    return f"{charged} credits charged for {len(legs)} rounds", faults


def _legs_faults(job: Row, legs: list[tuple[str, int]]) -> Iterator[str]:
    kinds = Counter(kind for kind, _ in legs)
    if kinds != {"reserve": 1, "charge": 1, "release": 1}:
        yield f"{job['key']} ({job['status']}) has {dict(kinds)} in the ledger"
        return
    amounts = dict(legs)
    if amounts["charge"] + amounts["release"] != amounts["reserve"]:
        yield f"{job['key']}: {amounts} does not add up"
    due = BASE + job["done"] if job["done"] and job["status"] != "failed" else 0
    if amounts["charge"] != due:
        yield f"{job['key']} ({job['status']}): {job['done']} images processed, {amounts['charge']} credits charged"


def money(record: Record) -> Looked:
    rows = record.rows["ledger"]
    faults = []
    for account in record.rows["accounts"]:
        own = [row for row in rows if row["account"] == account["id"]]
        granted = sum(row["amount"] for row in own if row["kind"] == "grant")
        charged = sum(row["amount"] for row in own if row["kind"] == "charge")
        has = {name: account[name] for name in ("available", "held", "charged")}
        if sum(has.values()) != granted or has["held"] != 0 or has["charged"] != charged:
            faults.append(f"account {account['id']} has {has}; it was granted {granted}, and its ledger charges {charged}")
    return f"{len(record.rows['accounts'])} accounts, nothing held" if not faults else "not conserved", faults


def right_image(record: Record) -> Looked:
    faults, count = [], 0
    for name, seen in record.seen.items():
        numbers = record.jobs[name]["numbers"]
        times = Counter(index for index, _ in seen["results"])
        faults += [f"{name}: image {index} has {many} records" for index, many in times.items() if many > 1]
        failed = {index for index, _ in seen["errors"]}
        faults += [f"{name}: image {index} has a record and a failure" for index in sorted(failed & set(times))]
        for index, value in seen["results"]:
            count += 1
            if not 0 <= index < len(numbers) or numbers[index] != value:
                faults.append(f"{name}: the record of image {index} is of picture {value}")
    return f"{count} records", faults


def as_without_faults(record: Record) -> Looked:
    odd = set(record.blocked) | set(map(int, record.poison))
    faults, count = [], 0
    for name, seen in record.seen.items():
        job = record.jobs[name]
        if job["cancelled"]:
            continue
        was, now = _outcomes(record.baseline.get(name, {"results": [], "errors": []})), _outcomes(seen)
        for index, number in enumerate(job["numbers"]):
            if number in odd:
                continue
            count += 1
            if was.get(index) != now.get(index):
                faults.append(f"{name}: image {index} was {was.get(index)}, and is {now.get(index)}")
    return f"{count - len(faults)} of {count} images", faults


def _outcomes(seen: Row) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for index, value in [*seen["results"], *seen["errors"]]:
        found[index].append(value)
    return found


def fails_alone(record: Record) -> Looked:
    expected = {int(number): codes for number, codes in record.poison.items()}
    expected |= {number: ["safety_blocked"] for number in record.blocked}
    faults, count = [], 0
    for name, seen in record.seen.items():
        job, now = record.jobs[name], _outcomes(seen)
        for index, number in enumerate(job["numbers"]):
            if number not in expected or job["cancelled"]:
                continue
            count += 1
            if len(now[index]) != 1 or now[index][0] not in expected[number]:
                faults.append(f"{name}: image {index} is {now[index]}, not one of {expected[number]}")
    return f"{count - len(faults)} of {count} such images", faults


def cancelled_for_good(record: Record) -> Looked:
    rows = {row["id"]: row for row in record.rows["jobs"]}
    faults, count = [], 0
    for line in record.client:
        if line["what"] not in {"cancel", "cancel late"} or line["id"] not in rows:
            continue
        count += 1
        row = rows[line["id"]]
        if line["status"] == 200 and (row["status"], row["done"]) != ("cancelled", line["succeeded"]):
            faults.append(f"{line['job']} was cancelled with {line['succeeded']} done, and is {row['status']} with {row['done']}")
        if line["what"] == "cancel late" and line["status"] != (200 if line["ended_as"] == "cancelled" else 409):
            faults.append(f"{line['job']} had ended as {line['ended_as']}; a cancel of it gave {line['status']}")
    return f"{count} cancels", faults


def scratch_empty(record: Record) -> Looked:
    after, left = record.scratch["after"], record.scratch["left"]
    if left or after is None or after > QUIET_SECONDS:
        return f"{len(left)} objects left", [f"{len(left)} scratch objects after {QUIET_SECONDS:g} s: {left[:5]}"]
    return f"empty {after:.0f} s after quiet", []


def told(record: Record) -> Looked:
    got: dict[str, list[Row]] = defaultdict(list)
    for call in record.received:
        got[json.loads(call["body"])["data"]["id"]].append(call)
    faults = []
    wanted = [row for row in record.rows["jobs"] if row["key"] in record.jobs and record.jobs[row["key"]]["webhook"]]
    for row in wanted:
        events = got[row["id"]]
        if not any(call["answered"] == "204" for call in events):
            faults.append(f"{row['key']} ({row['status']}) was never delivered; {len(events)} attempts")
        if len({(call["headers"].get("webhook-id"), call["body"]) for call in events}) > 1:
            faults.append(f"{row['key']} was delivered with other ids or bytes")
        faults += [
            f"{row['key']}: {fault}" for call in events for fault in _signature_faults(call, record.secrets[row["account"]])
        ]
        if events and json.loads(events[0]["body"])["type"] != f"job.{row['status']}":
            faults.append(f"{row['key']} is {row['status']}, and its event says {json.loads(events[0]['body'])['type']}")
    for row in record.rows["deliveries"]:
        if row["state"] != "delivered":
            faults.append(f"the delivery of {row['job']} is {row['state']}")
    return f"{len(wanted)} events in {len(record.received)} calls", faults


def _signature_faults(call: Row, secrets: list[str]) -> Iterator[str]:
    headers = call["headers"]
    said = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.{call['body']}".encode()
    known = {
        "v1,"
        + base64.b64encode(hmac.new(base64.b64decode(secret.removeprefix("whsec_")), said, hashlib.sha256).digest()).decode()
        for secret in secrets
    }
    if not known & set(headers.get("webhook-signature", "").split()):
        yield "a signature does not verify"
    if abs(int(headers.get("webhook-timestamp") or 0) - call["at"]) > CLOCK_SECONDS:
        yield "a timestamp is of another time"


def recovered(record: Record) -> Looked:
    last = max((fault["ended"] for fault in record.faults), default=None)
    if last is None:
        return "no faults", []
    took = sorted(
        row["finished_at"] / 1000 - last if row["finished_at"] else math.inf
        for row in record.rows["jobs"]
        if row["created_at"] / 1000 <= last and (not row["finished_at"] or row["finished_at"] / 1000 > last)
    )
    if not took:
        return "no job was open then", []
    half = took[max(len(took) // 2 - 1, 0)] if len(took) > 1 else 0.0
    faults = [f"half of {len(took)} open jobs ended after {half:.0f} s"] if half > HALF_SECONDS else []
    faults += [f"the last of {len(took)} open jobs ended after {took[-1]:.0f} s"] if took[-1] > ALL_SECONDS else []
    return f"{len(took)} open then: half in {half:.0f} s, all in {took[-1]:.0f} s", faults


def reclaimed(record: Record) -> Looked:
    took = [math.inf if row["seconds"] is None else row["seconds"] for row in record.reclaims]
    faults = [
        f"step {row['step']} of {row['process']} was free after {seconds:.0f} s"
        for row, seconds in zip(record.reclaims, took, strict=True)
        if seconds > RECLAIM_SECONDS
    ]
    return f"{len(took)} steps, the slowest after {max(took, default=0):.0f} s", faults


def stopped(record: Record) -> Looked:
    faults = [
        f"{stop['process']} ended {stop['seconds']:.0f} s after SIGTERM with code {stop['code']}"
        for stop in record.stops
        if stop["seconds"] > STOP_SECONDS or stop["code"] not in ({0, -signal.SIGTERM} if stop["age"] < START_SECONDS else {0})
    ]
    slowest = max((stop["seconds"] for stop in record.stops), default=0)
    return f"{len(record.stops)} deploys, the slowest in {slowest:.0f} s", faults


def few_calls(record: Record) -> Looked:
    before, now = (sum(call["outcome"] not in REJECTED for call in calls) for calls in (record.baseline_calls, record.calls))
    ratio = now / before if before else math.inf
    seen = f"{now} for {before}: {ratio:.2f} times; {len(record.calls) - now} more were rejected"
    return seen, [f"{ratio:.2f} times as many model calls"] if ratio > MOST_CALLS else []


PROMISES: dict[str, Callable[[Record], Looked]] = {
    "every accepted job ends": ended,
    "one key is one job": same_job,
    "one charge and one release a job, of what was processed": charged_once,
    "money is conserved": money,
    "no record under a wrong image": right_image,
    "every other image is as without faults": as_without_faults,
    "blocked and poisoned images fail alone, with their codes": fails_alone,
    "a cancelled job changes no more, an ended one is not cancelled": cancelled_for_good,
    f"scratch is empty {QUIET_SECONDS:g} s after quiet": scratch_empty,
    "every event is delivered: one id, the same bytes, signed": told,
    f"after the last fault half of the open jobs end in {HALF_SECONDS:g} s, all in {ALL_SECONDS:g} s": recovered,
    f"a dead worker's step is free in {RECLAIM_SECONDS:g} s": reclaimed,
    f"SIGTERM ends a worker in {STOP_SECONDS:g} s with code 0": stopped,
    f"at most {MOST_CALLS:g} times the model calls": few_calls,
}


def happened(record: Record) -> dict[str, Any]:
    """Statistics that show how hard the run was. No promise depends on them."""
    steps = record.rows["steps"]
    undone = [f"{fault['kind']}: {fault['what']}" for fault in record.faults if fault["what"].startswith("not done")]
    return {
        "faults": len(record.faults),
        "faults not done": undone,
        "steps that were claimed again": sum(step["epoch"] > 1 for step in steps),
        "steps whose lease ran out": sum(step["expiries"] > 0 for step in steps),
        "deaths of steps that ran alone": sum(step["deaths"] for step in steps),
        "model calls": dict(Counter(call["outcome"] for call in record.calls)),
        "client": dict(Counter(line["what"] for line in record.client)),
        "refusals": dict(Counter(line["status"] for line in record.client if line["what"] == "refused")),
    }


def load(path: Path) -> Record:
    values = json.loads(path.read_text())
    return Record(**{field.name: values[field.name] for field in fields(Record)})


if __name__ == "__main__":
    for found in check(load(Path(sys.argv[1]))):
        print("ok  " if not found.faults else "FAIL", found.promise, "|", found.seen, *found.faults[:20], sep="\n       ")  # noqa: T201
