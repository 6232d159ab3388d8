"""Publishes the counters of each process in Redis, where the API process reads them for /metrics.

Processes publish totals, not differences. So a total may be sent twice, and after a flush of Redis the next one restores it.
"""

from __future__ import annotations

import json
import secrets
import threading
from typing import Protocol

import structlog

from pipeline.errors import PartError
from pipeline.metrics import Counts, counts
from storage.redis.signals import owner_name

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 5.0
_MARK = secrets.token_hex(4)
END_SECONDS = 2.0  #: time that the last publish may take


class Board(Protocol):
    """The place where processes publish their counts; the real one is storage.redis.signals.Signals."""

    def publish(self, process: str, text: str) -> None: ...
    def published(self) -> dict[str, str]: ...


def process_name(role: str) -> str:
    """A name that no other running process has. Two hosts may have the same name, and containers often have the same process ids."""
    return f"{role}@{owner_name()}-{_MARK}"


def counts_of_others(board: Board, own: str) -> dict[str, Counts]:
    """The recently published counts of all other processes. Raises Transient and Permanent."""
    return {process: json.loads(text) for process, text in board.published().items() if process != own}


class Publisher:
    """Publishes this process's counts every 5 s, and once more when the process ends."""

    def __init__(self, board: Board, role: str) -> None:
        self._board = board
        self._process = process_name(role)
        self._ending = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes once more. It waits at most 2 s, so a Redis that does not answer can't block the exit."""
        self._ending.set()
        self._thread.join(END_SECONDS)

    def publish(self) -> None:
        """Publishes the counts. If Redis is unavailable, this process keeps counting, and a later call publishes the totals."""
        try:
            self._board.publish(self._process, json.dumps(counts()))
            self._failing = False
        except PartError as error:
            if not self._failing:
                log.warning("counts_not_published", reason=repr(error))
            self._failing = True

    def _run(self) -> None:
        while not self._ending.wait(PUBLISH_SECONDS):
            self.publish()
        self.publish()
