"""Authentication by API key, and the rate limit of a key."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import structlog
from flask import Response, g, request
from limits.errors import StorageError

from api.errors import UNAUTHORIZED, ApiError
from api.wiring import WebParts
from storage.account.accounts import KeyOwner, key_id, owner_of
from storage.redis.errors import AWAY

log = structlog.get_logger(__name__)

#: Where other services take a key. This one does not, but its error names the place.
KEY_HEADERS = ("X-API-Key", "Api-Key", "X-Api-Token", "X-Auth-Token", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key")
KEY_PARAMETERS = ("key", "api_key", "apiKey", "apikey", "token", "access_token")

_QUOTES = tuple("\"'<>{}[]`\u201c\u201d")  #: what people leave around a key that they paste; no key has one of these


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """The rate limit of a key, and what is left of it."""

    limit: int  #: requests per window
    window: int  #: seconds
    remaining: int
    seconds: int | None  #: until more requests are allowed; None if Redis could not count


def authenticate(parts: WebParts) -> str:
    """Returns the account of the request's key, and counts the request against the key's rate. Raises ApiError 401 or 429."""
    account = optional_account(parts)
    if account is None:
        raise unauthorized()
    return account


def unauthorized() -> ApiError:
    """The refusal of a request without a valid key, with a hint if the request shows what is wrong."""
    return ApiError(UNAUTHORIZED.status, UNAUTHORIZED.code, UNAUTHORIZED.message, UNAUTHORIZED.headers, hint=_hint())


def _hint() -> str:
    """How to send the key, if the form of the request alone shows what is wrong. It says nothing about any key.

    The compatible endpoint's 401 has the same bytes for every cause, so there the hint is shown only in problem details.
    """
    sent = request.headers.get("Authorization", "")
    if sent and sent.partition(" ")[0].lower() != "bearer":
        return "Write Bearer and a space before the key: Authorization: Bearer <key>."
    if wrong := _around_key(sent.partition(" ")[2].strip()):
        return f"{wrong}: Authorization: Bearer <key>."
    for name in KEY_HEADERS:
        if not sent and name in request.headers:
            return f"The key came in the header {name}; send it as Authorization: Bearer <key>."
    for name in KEY_PARAMETERS:
        if not sent and name in request.args:
            return f"The key came in the query, as {name}; send it in the header Authorization: Bearer <key>, as URLs are logged."
    return ""


def _around_key(key: str) -> str:
    """What stands in the place of a key or around it and can be part of none. Empty: nothing does."""
    if key.lower().startswith("bearer"):
        return "Bearer stands there twice, so write it once"
    if key[:1] in _QUOTES or key[-1:] in _QUOTES:
        return "Write the key without quotes or brackets around it"
    if key.startswith(("$", "%")):
        return "A variable was sent by its name in place of the key, so set it and let the shell insert it"
    return ""


def optional_account(parts: WebParts) -> str | None:
    """Like `authenticate`, for an endpoint that needs no key. None if there is no valid key. Raises ApiError 429."""
    owner, public = owner_of_key(parts)
    if owner is None:
        return None
    structlog.contextvars.bind_contextvars(account=owner.account)
    g.key, g.available = public, owner.available
    _count(parts, public)
    return owner.account


def owner_of_key(parts: WebParts) -> tuple[KeyOwner | None, str]:
    """The account of the request's key, None if there is no valid key; and the key's public id. Nothing is counted."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    key = key.strip()
    public = key_id(key) if scheme.lower() == "bearer" else None
    if public is None:
        return None, ""
    with parts.database.read() as connection:
        return owner_of(connection, key, parts.secret_key), public


def _count(parts: WebParts, key: str) -> None:
    """Counts one request against the key's rate. If Redis is away, the request is not counted and is served."""
    g.rate = Rate(limit=parts.rate.amount, window=parts.rate.get_expiry(), remaining=parts.rate.amount, seconds=None)
    try:
        allowed = parts.limiter.hit(parts.rate, key)
    except (*AWAY, StorageError) as error:
        log.warning("rate_not_counted", reason=repr(error))
        return
    g.counted = key
    if not allowed:
        g.rate = replace(g.rate, remaining=0)
        # The first place comes free one share of the window after the time that the counts say.
        left = _read_rate(parts, more=parts.rate.get_expiry() / parts.rate.amount)
        text = f"This key may send {parts.rate}; try again in {left} s."
        raise ApiError(429, "rate_limited", text, {"Retry-After": str(left)})


def read_rate(parts: WebParts) -> None:
    """Reads what is left of the key's rate, for the answer's headers. A request that waits does it while it waits."""
    if g.get("counted"):
        _read_rate(parts)


def _read_rate(parts: WebParts, *, more: float = 0.0) -> int:
    """Returns the seconds until more requests are allowed, with these `more`. At least 1, as when Redis is away."""
    key = g.pop("counted")
    try:
        window = parts.limiter.get_window_stats(parts.rate, key)
    except (*AWAY, StorageError) as error:
        log.warning("rate_not_read", reason=repr(error))
        return max(1, math.ceil(more))
    # The two readings of this machine's clock cancel out: the counts age by the clock of Redis.
    left = max(1, math.ceil(window.reset_time - time.time() + more))
    g.rate = replace(g.rate, remaining=max(window.remaining, 0), seconds=left)
    return left


def add_rate_headers(parts: WebParts, response: Response) -> Response:
    """Adds rate headers to every answer to a valid key, refusals too.

    X-RateLimit-* are in common use; RateLimit and RateLimit-Policy follow draft-ietf-httpapi-ratelimit-headers-10.
    """
    read_rate(parts)
    rate: Rate | None = g.get("rate")
    if rate:
        response.headers["X-RateLimit-Limit"] = str(rate.limit)
        response.headers["X-RateLimit-Remaining"] = str(rate.remaining)
        response.headers["RateLimit-Policy"] = f'"key";q={rate.limit};w={rate.window}'
        response.headers["RateLimit"] = f'"key";r={rate.remaining}' + (f";t={rate.seconds}" if rate.seconds else "")
    return response
