"""What a run leaves behind for the checker."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Looked = tuple[str, list[str]]  #: what was seen, in a few words, and the faults

ENDED = {"succeeded", "partial", "failed", "cancelled"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The plan of a run, and what each part saw. Times are seconds since 1970, except in `rows`, which has milliseconds."""

    jobs: dict[str, Row]  #: name → the fields of plan.Job, and `numbers` of its pictures, in order
    blocked: list[int]  #: numbers of the pictures that the model refuses
    poison: dict[str, list[str]]  #: a picture's number → the codes it may fail with
    granted: dict[str, int]  #: account → the credits that it was given
    base_client: list[Row]  #: the client's lines without faults; see `client`
    baseline: dict[str, Row]  #: name → results [[index, value]] and errors [[index, code]] for the client, without faults
    baseline_calls: list[Row]  #: each model call without faults: at, numbers, outcome
    #: The client's lines under faults: at, job, what, and what goes with it. See load/client.py.
    client: list[Row]
    seen: dict[str, Row]  #: the same as `baseline`, under faults, and messages [[index, message]]
    shown_balances: dict[str, Row]  #: account → available, held and charged, as the API shows them at the end
    #: Rows of the tables at the end: jobs (with phase, name, try and done), ledger, accounts, deliveries, steps.
    rows: dict[str, list[Row]]
    calls: list[Row]  #: each model call under faults: at, numbers, outcome
    received: list[Row]  #: each call of the webhook receiver: at, headers, body, answered
    secrets: dict[str, list[str]]  #: account → the secrets that sign its webhooks
    #: How fast the machine is, and what it had to do: seconds and images of the load without faults, and `left`, the images
    #: without an outcome when the last fault was over.
    pace: Row
    scratch: Row  #: after (seconds), ended, unknown (numbers of objects left for the sweep), left (names after the sweep)
    planned: dict[str, int]  #: kind of fault → how often it was planned
    faults: list[Row]  #: the faults that were injected: kind, at, ended, what, hits (how often it took effect)
    reclaims: list[Row]  #: the steps that a dead, paused or cut-off process held: step, process, since, seconds or None
    #: When a process, paused meanwhile, held SQLite's write lock for long: start and end, epoch seconds.
    locked: list[tuple[float, float]]
    stops: list[Row]  #: the processes that got SIGTERM: process, at (epoch seconds), age (seconds since its start), seconds, code
    deaths: list[Row]  #: the processes that ended unasked: at, process, code, said (its last lines)
    attacks: dict[str, int]  #: what the misbehaving account did → how often; empty: there is none
    clocks: int  #: how often a process found that its clock differs from that of S3
    attacker: str = ""  #: the account that misbehaves


def load(path: Path) -> Record:
    values = json.loads(path.read_text())
    values["locked"] = [tuple(window) for window in values["locked"]]
    return Record(**{field.name: values[field.name] for field in fields(Record)})


def of_phase(record: Record, phase: str = "run") -> list[Row]:
    """The rows of the planned jobs of a phase."""
    return [row for row in record.rows["jobs"] if row["phase"] == phase]


def deleted(record: Record) -> set[str]:
    """The ids of the jobs that the client has deleted."""
    return {line["id"] for line in record.client if line["what"] == "deleted"}


def outcomes(seen: Row) -> dict[int, list[Any]]:
    """Index → the values of its records and the codes of its failures."""
    found: dict[int, list[Any]] = {}
    for index, value in [*seen["results"], *seen["errors"]]:
        found.setdefault(index, []).append(value)
    return found


def windows(record: Record, *kinds: str) -> list[tuple[float, float]]:
    """When faults of these kinds lasted."""
    return [(fault["at"], fault["ended"]) for fault in record.faults if fault["kind"] in kinds]
