"""What an error of Redis, or of the queue that Celery keeps in it, means."""

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

#: All that the clients of Redis raise. Who rings or tells catches these and goes on: SQL is the truth.
AWAY = (RedisError, KombuError, OSError)
_NOT_ALLOWED = (AuthenticationError, AuthorizationError, NoPermissionError)
_TRANSIENT = (
    ConnectionError,  # while it loads its data, too
    TimeoutError,
    InvalidResponse,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,  # as long as a failover lasts
    TryAgainError,
    OperationalError,  # kombu's, for whatever broke a connection
)


def redis_error(error: Exception) -> PartError:
    """What one of AWAY means."""
    text = str(error) or type(error).__name__
    if isinstance(error, _NOT_ALLOWED):
        return not_allowed(text)
    if isinstance(error, _TRANSIENT):
        return Transient(text)
    if isinstance(error, OSError):
        return os_error(error) or Transient(text)  # of TLS or a name look-up: the way to the server
    return Permanent(text)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raises Redis's errors as Transient or Permanent."""
    try:
        yield
    except AWAY as error:
        raise redis_error(error) from error
