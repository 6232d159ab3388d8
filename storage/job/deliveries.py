"""Webhook deliveries. The event is stored in the transaction that ends the job, and each attempt sends the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from pipeline.job_object import job_json, result_json
from pipeline.outbound.webhook import MOST_BYTES, WebhookResponse
from pipeline.types import JobStatus, StepKind
from storage.account.accounts import random_id
from storage.database import now_ms
from storage.job.locked import LockedJob
from storage.job.views import job_view, result_view
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import deliveries_table, jobs_table

MOST_TEXTS = 3  #: attempts whose answer is kept, the last ones
MOST_ATTEMPTS = 50  #: attempts that are kept of one delivery, because the owner may resend it any number of times


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """The data that a webhook step sends."""

    id: str  #: the event's id, the same in each attempt, so that receivers can detect duplicates
    account: str
    url: str
    body: bytes
    pending: bool
    now: int  #: milliseconds since 1970 by the database's clock


def announce(connection: Connection, job: LockedJob) -> list[int]:
    """Stores the event of a job that has just ended and has a webhook_url, and adds the step that delivers the event.

    Returns the ids of the next steps.
    """
    view = job_view(connection, job.id, job.account)
    if view is None:
        raise LookupError(f"there is no job {job.id}")
    shown = job_json(view)
    event = f"job.{view.status.value}"
    data = shown
    if view.status is not JobStatus.FAILED:
        result = result_json(view, result_view(connection, job.id))
        data = {**shown, **{name: result[name] for name in ("results", "errors") if name in result}}
    body = _body(event, data)
    if len(body.encode()) > MOST_BYTES:
        body = _body(event, shown)
    connection.execute(
        insert(deliveries_table).values(
            id=random_id("evt_", 24),
            job=job.id,
            round=job.round,
            account=job.account,
            url=job.webhook_url,
            event=event,
            body=body,
            state="pending",
            attempts=[],
            created_at=now_ms(),
        )
    )
    return steps.add(connection, job=job.id, round_=job.round, kind=StepKind.WEBHOOK)


def _body(event: str, data: dict[str, Any]) -> str:
    return json.dumps({"type": event, "timestamp": data["finishedAt"], "data": data}, ensure_ascii=False, separators=(",", ":"))


def delivery_of(connection: Connection, lease: Lease) -> Delivery:
    """The delivery of the lease's step."""
    row = connection.execute(select(deliveries_table, now_ms().label("now")).where(*_of(lease))).one()
    return Delivery(
        id=row.id,
        account=row.account,
        url=row.url,
        body=(row.body or "").encode(),
        pending=row.state == "pending",
        now=row.now,
    )


def record_attempt(connection: Connection, lease: Lease, answered: WebhookResponse, *, ms: int, again: float | None) -> list[int]:
    """Records an attempt, which took `ms` milliseconds. `again`: seconds until the next attempt, None if there is none.

    Returns the ids of the next steps: none. Raises LostLease.
    """
    if answered.accepted or again is None:
        steps.finish(connection, lease)
        state = "delivered" if answered.accepted else "dead"
    else:
        steps.hand_back(connection, lease, delay_ms=int(again * 1000), counts=True)
        state = "pending"
    kept = select(jobs_table.c.expires_at.is_not(None)).where(jobs_table.c.id == lease.job).scalar_subquery().label("kept")
    row = connection.execute(
        select(deliveries_table.c.attempts, deliveries_table.c.body, kept, now_ms().label("now")).where(*_of(lease))
    ).one()
    made = {"at": row.now, "status": answered.status, "error": answered.error, "ms": ms, "text": answered.text}
    attempts = [*row.attempts, made]
    for earlier in attempts[:-MOST_TEXTS]:
        earlier.pop("text", None)
    # If the job's results have expired meanwhile, the body is deleted after the last attempt.
    body = row.body if row.kept or state == "pending" else None
    connection.execute(
        update(deliveries_table).where(*_of(lease)).values(state=state, attempts=attempts[-MOST_ATTEMPTS:], body=body)
    )
    return []


def _of(lease: Lease) -> tuple[Any, ...]:
    return deliveries_table.c.job == lease.job, deliveries_table.c.round == lease.round
