"""Holds a connection open until a job ends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from sqlalchemy import Connection

from api.errors import ApiError
from api.held import HeldJob
from api.wiring import WebParts
from pipeline.metrics import WAIT_SECONDS, WAITING
from pipeline.tracing import spans
from pipeline.types import JobStatus
from storage.job.views import status_of
from storage.redis.answers import Success
from storage.redis.watching import Watch

LISTEN_SECONDS = 1.0  #: how often a waiting request checks whether the process is stopping
LOOK_SECONDS = 5.0  #: how often a waiting request reads the job's status, in case a signal was lost
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")
_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """How long the caller wants to wait (RFC 7240)."""

    seconds: float
    applied: str | None  #: the answer's Preference-Applied header; None: no such header


def preference(header: str | None, most: float) -> Preference:
    """What a Prefer header asks for, at most `most` seconds. Unknown preferences are ignored."""
    text = (header or "").lower()
    if _ASYNC.search(text):
        return Preference(seconds=0, applied="respond-async")
    wait = _WAIT.search(text)
    if wait:
        return Preference(seconds=min(float(wait[1]), most), applied=f"wait={wait[1]}" if float(wait[1]) <= most else None)
    return Preference(seconds=most, applied=None)


@contextmanager
def waiting_place(parts: WebParts, account: str, *, needed: bool) -> Iterator[None]:
    """Takes one of the process's waiting places. Raises ApiError 429 if all are taken, or the account's share of them is."""
    if not needed:
        yield
        return
    with held_place(parts, account, "No place to wait is free. Send `Prefer: respond-async` and follow the job, or try again."):
        WAITING.add()
        began = time.monotonic()
        try:
            yield
        finally:
            WAITING.add(-1)
            WAIT_SECONDS.observe(time.monotonic() - began)


@contextmanager
def held_place(parts: WebParts, account: str, text: str) -> Iterator[None]:
    """Takes a waiting place for a request that holds its thread for another reason. Raises ApiError 429 with this text."""
    if not parts.waiting_places.take(account):
        raise ApiError(429, "no_waiting_place", text, {"Retry-After": "5"})
    try:
        yield
    finally:
        parts.waiting_places.give_back(account)


def wait_for_end(
    parts: WebParts,
    job: str,
    seconds: float,
    gone: Callable[[], bool] = lambda: False,
    held: HeldJob | None = None,
    *,
    watched: Watch | None = None,
    read: Callable[[Connection, str], JobStatus | None] = status_of,
    take: Callable[[Success], object] | None = None,
) -> bool:
    """Whether the job ended within `seconds`. False too if the process stops, the job is deleted or the client disconnects.

    `held`: may end the job, on behalf of a request that holds it open. `watched`: a watch that began before any worker knew of the
    job. Nothing of the job has been missed then, so its status is not read before something happens. `read`: reads the status. `take`:
    takes the answer of the ended job, if its worker has sent it.
    """
    ends = time.monotonic() + seconds
    look = time.monotonic() + LOOK_SECONDS if watched else 0.0
    with spans.span("wait"), nullcontext(watched) if watched else parts.signals.watch(job, end_only=True) as watch:
        while True:
            now = time.monotonic()
            if now >= look:
                look = now + LOOK_SECONDS
                with parts.database.read() as connection:
                    status = read(connection, job)
                if status is None or JobStatus(status).ended:
                    return status is not None
                if held and not gone():
                    if held.look():
                        look = 0.0
                        continue
                    look = min(look, max(held.due, now))
            if now >= ends or parts.stopping() or gone():
                return False
            if watch.wait(min(LISTEN_SECONDS, ends - now, max(look - now, 0.0))):
                look = 0.0
                if take and watch.answer:
                    take(watch.answer)
                    return True
