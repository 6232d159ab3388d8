"""Translates the errors of Redis, and of Celery's queue in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - Redis's own name
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,  # noqa: A004 - as above
    TryAgainError,
)

from pipeline.errors import PartError, Permanent, Transient, not_allowed, os_error

#: All errors that the Redis clients raise. Code that notifies catches them and continues, because the state is in SQL.
AWAY = (RedisError, KombuError, OSError)
_NOT_ALLOWED = (AuthenticationError, AuthorizationError, NoPermissionError)
_TRANSIENT = (
    ConnectionError,  # also raised while Redis loads its data
    TimeoutError,
    InvalidResponse,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,  # raised during a failover
    TryAgainError,
    OperationalError,  # kombu raises it for any broken connection
)


def redis_error(error: Exception) -> PartError:
    """Translates one of the errors in AWAY."""
    text = str(error) or type(error).__name__
    if isinstance(error, OutOfMemoryError):
        text = "Redis is full: it refuses writes, so nothing can be announced. Raise its maxmemory, or find what else fills it."
    if isinstance(error, _NOT_ALLOWED):
        return not_allowed(text)
    if isinstance(error, _TRANSIENT):
        return Transient(text)
    if isinstance(error, OSError):
        return os_error(error) or Transient(text)  # a TLS or DNS error: the server can't be reached
    return Permanent(text)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raises Redis's errors as Transient or Permanent."""
    try:
        yield
    except AWAY as error:
        raise redis_error(error) from error
