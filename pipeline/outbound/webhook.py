"""Signs webhooks by Standard Webhooks (https://www.standardwebhooks.com), and decides when they are retried. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "whsec_"
SECRET_BYTES = 24
MOST_BYTES = 20_000  #: of a body; if the results do not fit, the receiver fetches them by the link in it
LONGEST_WAIT = 86_400.0  #: seconds; a longer Retry-After of a receiver is cut to this


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookResponse:
    """The outcome of one call of a webhook."""

    status: int | None  #: the HTTP status; None if there was no answer
    error: str = ""  #: why there was no answer, in a word or two
    retry_after: float = 0.0  #: seconds of the receiver's Retry-After; 0: it sent none
    text: str = ""  #: how the body of the answer begins; a stranger's text. Empty: there was none, or it may not be shown

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver asks to get no more webhooks (HTTP 410)."""
        return self.status == 410


def as_text(secret: bytes) -> str:
    """The secret in the form that receivers get. It is padded standard base64, because all libraries read this form alike."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(secrets: Sequence[bytes], *, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks.

    `secrets`: several while a secret is being rotated; each of them signs. `timestamp`: seconds since 1970.
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def next_try(answered: WebhookResponse, *, attempt: int, schedule: Sequence[float], jitter: float) -> float | None:
    """Seconds until the next attempt after number `attempt` (from 0). None if there is no further attempt.

    `jitter`: a random number from 0 to 1. It makes the wait longer by up to a fifth, so that webhooks that failed together are
    not retried together.
    """
    if answered.gone or attempt >= len(schedule):
        return None
    wait = schedule[attempt] * (1 + jitter / 5)
    if answered.status in (429, 503):
        wait = max(wait, min(answered.retry_after, LONGEST_WAIT))
    return wait
