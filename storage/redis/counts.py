"""What each process has counted, where the front door can read it: in Redis, as whole totals, never as differences.

Totals may be sent twice, and Redis may be flushed: the next time they stand there again.
"""

from __future__ import annotations

import json
import threading
from typing import Protocol

import structlog

from pipeline.errors import PartError
from pipeline.metrics import Counts, counts
from storage.redis.signals import owner_name

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 5.0
END_SECONDS = 2.0  #: for the last time


class Board(Protocol):
    """Where processes put their counts: storage.redis.signals.Signals."""

    def publish(self, process: str, text: str) -> None: ...
    def published(self) -> dict[str, str]: ...


def process_name(role: str) -> str:
    """Unlike that of any other process that runs now."""
    return f"{role}@{owner_name()}"


def counts_of_others(board: Board, own: str) -> dict[str, Counts]:
    """What every process but this one has published lately. Raises Transient and Permanent."""
    return {process: json.loads(text) for process, text in board.published().items() if process != own}


class Publisher:
    """Publishes this process's counts every few seconds, and when it ends."""

    def __init__(self, board: Board, role: str) -> None:
        self._board = board
        self._process = process_name(role)
        self._ending = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes once more; a Redis that does not answer holds nobody up."""
        self._ending.set()
        self._thread.join(END_SECONDS)

    def publish(self) -> None:
        """Where Redis is away the counts go on here, and are published when it is back."""
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
