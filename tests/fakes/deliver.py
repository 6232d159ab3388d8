"""A receiver of webhooks without a network.

The answers named here are what pipeline/outbound/webhook_call.py gives in each case: tests/contract/test_deliver.py holds them to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from pipeline.outbound.addresses import read_url
from pipeline.outbound.webhook import WebhookResponse

ACCEPTED = WebhookResponse(status=204)
FAILED = WebhookResponse(status=500)
GONE = WebhookResponse(status=410)
BUSY = WebhookResponse(status=503, retry_after=120.0)
REDIRECTED = WebhookResponse(status=302)  #: it is not followed
UNREACHABLE = WebhookResponse(
    status=None, error="not reachable"
)  #: no such name, nobody there, or an address that is not allowed
LATE = WebhookResponse(status=None, error="timed out")
NOT_ALLOWED = WebhookResponse(status=None, error="url not allowed")


class FakeDeliver:
    """Implements pipeline.ports.Deliver. Keeps what it is sent.

    `script`: what it answers to the n-th call, from 0. Without one it accepts all.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.script: Callable[[int], WebhookResponse] = lambda _number: ACCEPTED
        self._lock = threading.Lock()

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        if isinstance(read_url(url, ()), str):
            return NOT_ALLOWED
        with self._lock:
            number = len(self.calls)
            self.calls.append((url, dict(headers), body))
        return self.script(number)
