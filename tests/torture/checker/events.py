"""The promise about webhooks: each event that was asked for arrives, always the same, and no other one does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Iterator

from tests.torture.checker.record import ENDED, Looked, Record, Row, deleted

CLOCK_SECONDS = 60  #: largest error of a webhook's timestamp


def told(record: Record) -> Looked:
    got: dict[str, list[Row]] = defaultdict(list)
    for call in record.received:
        got[call["headers"].get("webhook-id") or ""].append(call)
    jobs = {row["id"]: row for row in record.rows["jobs"] if row["phase"]}
    known = {row["id"]: row for row in record.rows["deliveries"]}
    faults, count = [], 0
    for event, calls in got.items():
        faults += _unasked(record, event, calls, known.get(event), jobs)
    for delivery in known.values():
        if delivery["account"] == record.attacker:
            continue
        count += 1
        faults += _delivery_faults(record, delivery, got[delivery["id"]], jobs.get(delivery["job"]))
    have = {(row["job"], row["round"]) for row in known.values()}
    for row in jobs.values():
        if row["name"] in record.jobs and record.jobs[row["name"]]["webhook"] and row["status"] in ENDED:
            missing = [round_ for round_ in range(1, row["round"] + 1) if (row["id"], round_) not in have]
            faults += [f"{row['name']} has no event of round {round_}" for round_ in missing]
    return f"{count} events in {len(record.received)} calls", faults


def _unasked(record: Record, event: str, calls: list[Row], delivery: Row | None, jobs: dict[str, Row]) -> Iterator[str]:
    if delivery is None:
        yield f"the event {event} was received {len(calls)} times, and nothing has sent it"
        return
    row = jobs.get(delivery["job"])
    if row is None:
        if delivery["job"] not in deleted(record):
            yield f"the event {event} is of {delivery['job']}, which nobody asked for"
    elif not record.jobs[row["name"]]["webhook"]:
        yield f"the event {event} is of {row['name']}, which has no webhook"
    for call in calls:
        said = json.loads(call["body"])["data"]["id"]
        if said != delivery["job"]:
            yield f"the event {event} of {delivery['job']} says it is of {said}"


def _delivery_faults(record: Record, delivery: Row, calls: list[Row], job: Row | None) -> Iterator[str]:
    name = job["name"] if job else delivery["job"]
    if job is None and delivery["state"] == "dead":  # a deleted job's event is not sent again
        return
    if delivery["state"] != "delivered" or not any(call["answered"] == "204" for call in calls):
        yield f"the event of {name}, round {delivery['round']}, is {delivery['state']}; {len(calls)} attempts arrived"
    if len({call["body"] for call in calls}) > 1:
        yield f"the event of {name}, round {delivery['round']}, came with other bytes"
    for call in calls:
        for fault in _signature_faults(call, record.secrets[delivery["account"]]):
            yield f"{name}: {fault}"
    says = {json.loads(call["body"])["type"] for call in calls} | {delivery["event"]}
    if job and delivery["round"] == job["round"] and says != {f"job.{job['status']}"}:
        yield f"{name} is {job['status']}, and its event says {sorted(says)}"


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
