"""Listens to Redis anew where a broken connection would go unnoticed.

A worker whose threads are all busy waits for no message, so it does not see its connection break. The acknowledgements of
what the threads work on fail then, Celery counts those messages as in hand for ever, and with none left to hand out it
asks for no more: alive, silent and idle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from celery.bootsteps import StartStopStep
from celery.worker.request import Request

LOOK_SECONDS = 1.0

#: Called each second as long as the worker listens.
while_listening: list[Callable[[], None]] = []

_worked_on: deque[Any] = deque()  # messages whose acknowledgement was ordered; Celery's loop then sends it


class WatchedRequest(Request):  # type: ignore[misc]
    """A message in hand, of which Listening is to know whether it was acknowledged."""

    def acknowledge(self) -> None:
        super().acknowledge()
        _worked_on.append(self.message)


class Listening(StartStopStep):  # type: ignore[misc]
    """Connects again when an acknowledgement failed on the present connection."""

    requires: ClassVar[set[str]] = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent: Any, **options: Any) -> None:
        self._timer: Any = None
        self._ordered: list[Any] = []
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        self._timer = parent.timer.call_repeatedly(LOOK_SECONDS, self._look, (parent,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self, consumer: Any) -> None:
        """Raises ConnectionError, which Celery's loop takes for a connection that is lost."""
        for show in while_listening:
            show()
        ordered, self._ordered = self._ordered, [_worked_on.popleft() for _ in range(len(_worked_on))]
        channel = consumer.task_consumer.channel
        if any(not message.acknowledged for message in ordered if message.channel is channel):
            raise ConnectionError("a message could not be acknowledged")
