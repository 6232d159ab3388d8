"""When the write lock of a SQLite file was held for long.

A process that is paused while it holds the lock keeps it, and no other process can write until it goes on. The service cannot free it:
SQLite has no lease. So what other processes must write in a given time does not count for that time.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

LOOK_SECONDS = 0.2
LONG_SECONDS = 2.0  #: a lock that is held longer belongs to a paused process; a commit takes tens of milliseconds


class Locked:
    """Tries to take the write lock, again and again. `windows`: start and end of each time in which it could not, in epoch seconds."""

    def __init__(self, file: Path, *, long_seconds: float = LONG_SECONDS) -> None:
        self.windows: list[tuple[float, float]] = []
        self._file = file
        self._long_seconds = long_seconds
        self._since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="locked", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        driver = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        try:
            while not self._stop.wait(LOOK_SECONDS):
                self._look(driver)
        finally:
            driver.close()

    def _look(self, driver: sqlite3.Connection) -> None:
        now = time.time()
        try:
            driver.execute("BEGIN IMMEDIATE")
            driver.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                self._since = self._since or now
            return  # for example, the disk is full
        if self._since is not None and now - self._since > self._long_seconds:
            self.windows.append((self._since, now))
        self._since = None
