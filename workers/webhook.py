"""The webhook step: one attempt to deliver the event that a job has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection

from pipeline.metrics import WEBHOOKS
from pipeline.outbound.webhook import WebhookResponse, headers, next_try
from pipeline.tracing.spans import span, traceparent
from storage.account.webhook_secrets import signing_secrets
from storage.job import deliveries
from storage.job.deliveries import Delivery
from storage.queue import steps
from storage.queue.steps import Lease
from workers.wiring import WorkerParts

log = structlog.get_logger(__name__)


def webhook(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Signs the stored body with the current time, and sends it. The returned commit records the attempt and schedules the next.

    If the worker crashes between sending and committing, the same id and bytes are sent once more. If the account's places for
    webhooks are in use, the returned commit hands the step back.
    """
    places = parts.webhook_places
    if not places.take(lease.account):
        return partial(_later, lease=lease, seconds=places.wait(lease.account))
    try:
        return _attempt(parts, lease)
    finally:
        places.give_back(lease.account)


def _attempt(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    with parts.database.write() as connection:
        delivery = deliveries.delivery_of(connection, lease)
        secrets = signing_secrets(connection, delivery.account, parts.secret_key)
    if not delivery.pending:
        return partial(_done, lease=lease)
    places, host = parts.webhook_places, urlsplit(delivery.url).hostname or ""
    if not places.take_host(lease.account, host):
        return partial(_later, lease=lease, seconds=places.wait(lease.account))
    signed = headers(secrets, event_id=delivery.id, timestamp=delivery.now // 1000, body=delivery.body)
    began = time.monotonic()
    try:
        answered = _sent(parts, lease, delivery, signed)
    finally:
        places.give_back_host(lease.account, host, seconds=time.monotonic() - began)
    took = int((time.monotonic() - began) * 1000)
    schedule = parts.settings.webhook_schedule
    again = next_try(answered, attempt=lease.tries, schedule=schedule, jitter=random.random())  # noqa: S311 - jitter
    _tell(answered, again)
    return partial(deliveries.record_attempt, lease=lease, answered=answered, ms=took, again=again)


def _sent(parts: WorkerParts, lease: Lease, delivery: Delivery, signed: Mapping[str, str]) -> WebhookResponse:
    """One call of the receiver. If the job is traced, the receiver may go on with its trace."""
    with span("webhook.send", "client", method="POST", delivery=delivery.id, tries=lease.tries) as sending:
        traced = {"traceparent": here} if (here := traceparent()) else {}
        answered = parts.deliver(delivery.url, {"Content-Type": "application/json", **signed, **traced}, delivery.body)
        if answered.status:
            sending.set(status=answered.status)
        if not answered.accepted:
            sending.fail(str(answered.status) if answered.status else answered.error.replace(" ", "_"))
        return answered


def _later(connection: Connection, lease: Lease, *, seconds: float) -> list[int]:
    steps.hand_back(connection, lease, delay_ms=int(seconds * 1000), counts=False)
    return []


def _done(connection: Connection, lease: Lease) -> list[int]:
    steps.finish(connection, lease)
    return []


def _tell(answered: WebhookResponse, again: float | None) -> None:
    WEBHOOKS.add(outcome="delivered" if answered.accepted else "dead" if again is None else "failed")
    if answered.accepted:
        log.info("webhook_delivered", status=answered.status)
    elif again is None:
        log.warning("webhook_dead", status=answered.status, reason=answered.error)
    else:
        log.info("webhook_failed", status=answered.status, reason=answered.error, again_in=round(again, 1))
