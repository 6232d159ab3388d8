"""A job as Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import msgspec
import structlog
from flask import Blueprint, Response, request

from api.auth import authenticate
from api.openapi.building import ref, text
from api.openapi.document import Parameter, ResponseSpec, describe
from api.paging import own_job
from api.patience import hung_up
from api.waiting import LISTEN_SECONDS, waiting_place
from api.wiring import WebParts
from pipeline.errors import PartError
from pipeline.job_object import JobView, job_json
from storage.job.views import job_view

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 15.0  #: between two lines, since proxies close silent connections; also between looks without a signal
PAUSE_SECONDS = 0.5  #: between two looks at the job; changes in between become one event
RETRY_MS = 2000  #: how long a client waits before it reconnects


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("job_events", __name__)

    @routes.get("/api/v1/jobs/<job>/events")
    @describe(
        "A job, as it changes",
        tag="Jobs",
        parameters=[
            Parameter(
                name="Last-Event-ID",
                place="header",
                schema=text(),
                what="The `id` of the last event that you have seen. The job is sent again only if it has changed since.",
            )
        ],
        answers=[
            ResponseSpec(
                status=200,
                what="Server-Sent Events: the job at once and whenever it has changed, until it has ended.",
                schema={"anyOf": [text("The stream as text."), ref("JobEvent")]},
                media=["text/event-stream"],
            ),
            ResponseSpec(status=204, what="The job has ended, and you have seen its last event. Do not connect again."),
        ],
        errors=["not_found", "no_waiting_place"],
    )
    def events(job: str) -> Response:
        """Streams the job until it has ended. The stream holds one of the waiting places."""
        account = authenticate(parts)
        view = own_job(parts, job, account)
        seen = request.headers.get("Last-Event-ID", "")
        if view.status.ended and _encoded(view)[0] == seen:
            return Response(status=204)
        place = ExitStack()
        place.enter_context(waiting_place(parts, account, needed=not view.status.ended))
        stream = _events(parts, job, account, seen, partial(hung_up, request.environ))
        # no-transform and X-Accel-Buffering keep proxies from holding events back to compress or buffer them.
        headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        answer = Response(stream, content_type="text/event-stream", headers=headers)
        answer.call_on_close(place.close)
        return answer

    return routes


def _events(parts: WebParts, job: str, account: str, seen: str, gone: Callable[[], bool]) -> Iterator[bytes]:
    """The stream of events after the event `seen`.

    It stops early if the process stops, the job is deleted or SQL is away. The client then reconnects with the last event's id.
    """
    yield f"retry: {RETRY_MS}\n\n".encode()
    with parts.signals.watch(job) as watch:
        told, looked, sent = True, float("-inf"), time.monotonic()
        while not parts.stopping() and not gone():
            now = time.monotonic()
            if now - looked >= (PAUSE_SECONDS if told else HEARTBEAT_SECONDS):
                told, looked = False, now
                try:
                    with parts.database.read() as connection:
                        view = job_view(connection, job, account)
                except PartError as error:
                    log.warning("job_not_seen", job=job, reason=type(error).__name__)
                    return
                if view is None:
                    return
                event_id, data = _encoded(view)
                if event_id != seen:
                    yield b"event: job\nid: %b\ndata: %b\n\n" % (event_id.encode(), data)
                    seen, sent = event_id, now
                if view.status.ended:
                    return
            if now - sent >= HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                sent = now
            patience = looked + PAUSE_SECONDS - now if told else LISTEN_SECONDS
            told = watch.wait(max(patience, 0)) or told


def _encoded(view: JobView) -> tuple[str, bytes]:
    """The event's id and the job as JSON. The id is a hash, so every process gives the same state the same id."""
    data = msgspec.json.encode(job_json(view))
    return hashlib.sha256(data).hexdigest()[:24], data
