"""Remembers that Redis was silent, so that not every thread waits for it.

A Redis that has ended refuses connections at once. A host that has lost its power or its network does not, and each attempt lasts
until its time-out. A request makes several: it counts, rings and tells. So after one attempt that had no answer, the others fail
at once for some seconds, and then one thread tries again.
"""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import Any

import redis
from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisAway

PAUSE_SECONDS = 3.0


class Silence:
    """Whether a Redis server was silent lately. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0  # 0: it was not

    def before(self) -> None:
        """Raises RedisAway if it was silent, except for the one thread that may try again."""
        with self._lock:
            now = time.monotonic()
            if now < self._until:
                raise RedisAway("Redis has not answered a moment ago")
            if self._until:
                self._until = now + PAUSE_SECONDS

    def met(self) -> None:
        with self._lock:
            self._until = time.monotonic() + PAUSE_SECONDS

    def over(self) -> None:
        with self._lock:
            self._until = 0.0


@cache
def _of(_host: str, _port: int) -> Silence:
    return Silence()


class _Remembering:
    """A connection that fails at once while its server is known to be silent."""

    host: str
    port: int

    def _connect(self) -> Any:
        silence = _of(self.host, self.port)
        silence.before()
        try:
            made = super()._connect()  # type: ignore[misc]
        except TimeoutError:
            silence.met()
            raise
        except OSError:  # somebody has answered, though not as hoped
            silence.over()
            raise
        silence.over()
        return made


class _Plain(_Remembering, Connection):
    pass


class _Encrypted(_Remembering, SSLConnection):
    pass


_KINDS = {Connection: _Plain, SSLConnection: _Encrypted}


def remember_silence(client: redis.Redis) -> redis.Redis:
    """Makes the connections that the client opens from now on remember it. Those by a Unix socket stay as they are."""
    pool = client.connection_pool
    pool.connection_class = _KINDS.get(pool.connection_class, pool.connection_class)
    return client
