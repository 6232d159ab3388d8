"""Calls functions each second while the worker's loop listens for messages. A worker whose loop stands still is not alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from celery.bootsteps import StartStopStep

LOOK_SECONDS = 1.0

#: Functions that are called each second while the worker listens.
while_listening: list[Callable[[], None]] = []


class Listening(StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer, which stops and starts with each connection to Redis."""

    requires: ClassVar[set[str]] = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent: Any, **options: Any) -> None:
        self._timer: Any = None
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        self._timer = parent.timer.call_repeatedly(LOOK_SECONDS, self._look)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        for show in while_listening:
            show()
