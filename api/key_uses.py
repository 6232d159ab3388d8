"""When each key was used last. A use is written at most once an hour, so that a request costs nothing for it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import structlog

from pipeline.errors import PartError
from storage.account.keys import USE_MS, note_use
from storage.database import Database

log = structlog.get_logger(__name__)

MOST = 10_000  #: keys that are remembered


class KeyUses:
    """Remembers which keys this process has seen within the hour. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, float] = OrderedDict()

    def note(self, database: Database, key: str) -> None:
        """Writes the use of the key if this process has not done so within the last hour. A failure is only logged."""
        now = time.monotonic()
        with self._lock:
            if now - self._seen.get(key, float("-inf")) < USE_MS / 1000:
                return
            self._seen[key] = now
            self._seen.move_to_end(key)
            while len(self._seen) > MOST:
                self._seen.popitem(last=False)
        try:
            with database.write() as connection:
                note_use(connection, key)
        except PartError as error:
            log.warning("key_use_not_written", reason=type(error).__name__)
