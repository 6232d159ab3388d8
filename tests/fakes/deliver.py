"""A receiver of webhooks without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.outbound.webhook import WebhookResponse


class FakeDeliver:
    """Keeps what it is sent; `script` says what it answers to the n-th call, from 0. Without one it accepts all."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.script: Callable[[int], WebhookResponse] = lambda _number: WebhookResponse(status=204)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        self.calls.append((url, dict(headers), body))
        return self.script(len(self.calls) - 1)
