"""Who asks, and how often they may."""

from __future__ import annotations

import math
import time

import structlog
from flask import Response, g, request
from limits.errors import StorageError
from redis.exceptions import RedisError

from api.errors import UNAUTHORIZED, ApiError
from api.wiring import Parts
from storage.accounts import account_of, key_id

log = structlog.get_logger(__name__)


def authenticate(parts: Parts) -> str:
    """The account of the request's key, counted against its rate. Raises ApiError 401 or 429."""
    account = optional_account(parts)
    if account is None:
        raise UNAUTHORIZED
    return account


def optional_account(parts: Parts) -> str | None:
    """As `authenticate`, for an endpoint that needs no key: None without a valid one."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    key = key.strip()
    public = key_id(key) if scheme.lower() == "bearer" else None
    if public is None:
        return None
    with parts.database.read() as connection:
        account = account_of(connection, key, parts.secret_key)
    if account is not None:
        _count(parts, public)
    return account


def _count(parts: Parts, key: str) -> None:
    """Takes one request of the key's rate. Without Redis nothing is counted: better served than refused."""
    g.rate = (parts.rate.amount, parts.rate.amount)
    try:
        allowed = parts.limiter.hit(parts.rate, key)
        window = parts.limiter.get_window_stats(parts.rate, key)
    except (RedisError, StorageError, OSError) as error:
        log.warning("rate_not_counted", reason=repr(error))
        return
    g.rate = (parts.rate.amount, max(window.remaining, 0))
    if not allowed:
        seconds = max(1, math.ceil(window.reset_time - time.time()))
        text = f"This key may send {parts.rate}; try again in {seconds} s."
        raise ApiError(429, "rate_limited", text, {"Retry-After": str(seconds)})


def add_rate_headers(response: Response) -> Response:
    """On every answer to a valid key, refusals too."""
    if "rate" in g:
        limit, remaining = g.rate
        response.headers["X-RateLimit-Limit"] = str(limit)
        response.headers["X-RateLimit-Remaining"] = str(remaining)
    return response
