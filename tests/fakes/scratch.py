"""A scratch store in memory."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import IO

_KEY = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")


class MemoryScratch:
    """Implements `pipeline.ports.Scratch` with a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.stored: dict[str, float] = {}  # key → when its object was stored, by `clock`
        self.clock = time.monotonic
        self._lock = threading.Lock()

    def put(self, key: str, body: IO[bytes]) -> None:
        _check(key)
        body.seek(0)
        data = body.read()
        with self._lock:
            self.objects[key] = data
            self.stored[key] = self.clock()

    def open(self, key: str) -> IO[bytes]:
        _check(key)
        try:
            return io.BytesIO(self.objects[key])
        except KeyError:
            raise FileNotFoundError(key) from None

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                _check(key)
                self.objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[str]:
        with self._lock:
            found = [key for key in self.objects if key.startswith(prefix)]
        yield from found

    def ages(self, prefix: str) -> Iterator[tuple[str, float]]:
        for key in self.list(prefix):
            yield key, self.clock() - self.stored.get(key, 0.0)

    def abort_uploads(self, seconds: float) -> int:
        """Returns 0, because an object is put at once."""
        return 0


def _check(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise ValueError(f"no scratch key: {key!r}")
