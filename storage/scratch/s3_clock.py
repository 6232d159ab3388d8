"""Signs requests to S3 by the clock of S3, because S3 refuses requests whose time is over 15 minutes off its own.

boto3 signs by the clock of this machine. When S3 refuses that (RequestTimeTooSkewed), the answer's Date header says by how much the
clock is off. The request is then repeated, and it and all later ones are signed with the corrected time.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import structlog
from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, S3SigV4Auth

log = structlog.get_logger(__name__)

SKEWED = "RequestTimeTooSkewed"
_NAME = "s3v4-corrected"
_MOST_CORRECTIONS = 2  #: of one request; S3's own machines may disagree, but not for ever


def correct_clock(client: Any) -> None:
    """Makes the boto3 client sign by the clock of its server. `now_of` tells the time of that clock."""
    AUTH_TYPE_MAPS[_NAME] = _CorrectedAuth
    clock, events = _Clock(), client.meta.events
    events.register("choose-signer.s3", _chosen)
    events.register("before-sign.s3", clock.mark)
    events.register_first("needs-retry.s3", clock.learn_and_repeat)
    client.meta.server_clock = clock


def now_of(client: Any) -> datetime:
    """The time by the clock of the client's server, as far as the client has learnt it."""
    return client.meta.server_clock.now()  # type: ignore[no-any-return]


class _CorrectedAuth(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """botocore calls the overridden method between setting the time and signing with it."""

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = request.context[_NAME].now().strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)


def _chosen(*, signature_version: object, **_: object) -> str | None:
    return _NAME if signature_version == "s3v4" else None


class _Clock:
    """The clock of a client's server: this machine's, and how far the server's is ahead of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def mark(self, *, request: Any, **_: object) -> None:
        """Tells the signer which clock to use."""
        request.context[_NAME] = self

    def learn_and_repeat(self, *, response: Any, attempts: int, **_: object) -> float | None:
        """Gives 0, which repeats the request at once, if the server refused its time."""
        if response is None or attempts > _MOST_CORRECTIONS:
            return None
        http, parsed = response
        if parsed.get("Error", {}).get("Code") != SKEWED:
            return None
        try:
            ahead = parsedate_to_datetime(http.headers["date"]) - datetime.now(UTC)
        except (KeyError, TypeError, ValueError):
            log.warning("clock_unknown", of="S3")  # the server refuses our time and does not say its own
            return None
        with self._lock:
            news = abs(ahead - self._ahead) > timedelta(seconds=60)
            self._ahead = ahead
        if news:
            log.warning("clock_differs", of="S3", seconds=round(ahead.total_seconds()))
        return 0.0
