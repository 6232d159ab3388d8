"""Reconnects to Redis where a broken connection would go unnoticed.

A worker whose threads are all busy waits for no message, so it does not notice that its connection breaks. Celery then fails to
acknowledge the messages that the threads work on, and counts them as unacknowledged for ever. When the prefetch limit is
reached, the worker asks for no more messages: it is alive, but it does nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from celery.bootsteps import StartStopStep
from celery.worker.request import Request

LOOK_SECONDS = 1.0

#: Functions that are called each second while the worker listens.
while_listening: list[Callable[[], None]] = []

_worked_on: deque[Any] = deque()  # messages whose acknowledgement was requested; Celery's loop sends it later


class WatchedRequest(Request):  # type: ignore[misc]
    """A request that gives its message to Listening, which checks that the message was acknowledged."""

    def acknowledge(self) -> None:
        super().acknowledge()
        _worked_on.append(self.message)


class Listening(StartStopStep):  # type: ignore[misc]
    """Reconnects when an acknowledgement failed on the current connection."""

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
        """Raises ConnectionError if an acknowledgement failed. Celery's loop handles it as a lost connection and reconnects."""
        for show in while_listening:
            show()
        ordered, self._ordered = self._ordered, [_worked_on.popleft() for _ in range(len(_worked_on))]
        channel = consumer.task_consumer.channel
        if any(not message.acknowledged for message in ordered if message.channel is channel):
            raise ConnectionError("a message could not be acknowledged")
