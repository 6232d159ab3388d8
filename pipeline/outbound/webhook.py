"""What a webhook says and how it is signed: Standard Webhooks (https://www.standardwebhooks.com). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "whsec_"
SECRET_BYTES = 24
MOST_BYTES = 20_000  #: of a body: results that do not fit are fetched by its link
LONGEST_WAIT = 86_400.0  #: seconds that a receiver's Retry-After may put us off


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookResponse:
    """What came of one call of a webhook."""

    status: int | None  #: HTTP, None where there was no answer
    error: str = ""  #: why there was none, in a word or two
    retry_after: float = 0.0  #: seconds the receiver asked for; 0: it did not

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more of this."""
        return self.status == 410


def as_text(secret: bytes) -> str:
    """The secret as receivers are given it: padded standard base64, the one form that all libraries read alike."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(secrets: Sequence[bytes], *, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers. `timestamp`: seconds since 1970; several secrets sign while one takes another's place."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def next_try(answered: WebhookResponse, *, attempt: int, schedule: Sequence[float], jitter: float) -> float | None:
    """Seconds until the next attempt after number `attempt` (from 0), or None if there is none.

    `jitter`: 0 to 1, drawn by the caller; it stretches the wait by up to a fifth, so that what failed together does not
    come back together.
    """
    if answered.gone or attempt >= len(schedule):
        return None
    wait = schedule[attempt] * (1 + jitter / 5)
    if answered.status in (429, 503):
        wait = max(wait, min(answered.retry_after, LONGEST_WAIT))
    return wait
