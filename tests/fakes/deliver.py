"""A receiver of webhooks without a network.

The answers below are those that pipeline/outbound/webhook_call.py gives. tests/contract/test_deliver.py checks that they agree.
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
REDIRECTED = WebhookResponse(status=302)  #: redirects are not followed
UNREACHABLE = WebhookResponse(
    status=None, error="not reachable"
)  #: the name is unknown, nothing listens, or the address is not allowed
LATE = WebhookResponse(status=None, error="timed out")
NOT_ALLOWED = WebhookResponse(status=None, error="url not allowed")


class FakeDeliver:
    """Implements pipeline.ports.Deliver. Records the calls.

    `script`: gives the answer to the n-th call, from 0. The default script accepts all calls.
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
