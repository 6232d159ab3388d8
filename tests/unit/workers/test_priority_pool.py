"""A queue is read on, whatever its reading met."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisAway

from storage.redis.messages import Message
from workers import priority_pool
from workers.priority_pool import PriorityPool


class Queue:
    """Raises the error first, and then gives one step."""

    def __init__(self, error: Exception) -> None:
        self.left: list[Any] = [error, 41]

    def take(self, _queue: str, *, seconds: float) -> Message | None:
        if not self.left:
            threading.Event().wait(min(seconds, 0.01))
            return None
        found = self.left.pop(0)
        if isinstance(found, Exception):
            raise found
        return Message(int(found))


@pytest.mark.parametrize("error", [RedisAway("away"), RuntimeError("a bug")])
def test_after_an_error_the_next_step_is_run(error, monkeypatch):
    monkeypatch.setattr(priority_pool, "LOOK_SECONDS", 0.01)
    ran, stopping = threading.Event(), threading.Event()
    signals: Any = Queue(error)
    pool = PriorityPool(signals, lambda message: ran.set() if message.step == 41 else None, threads=1, stopping=stopping)
    try:
        assert ran.wait(20)
    finally:
        stopping.set()
        pool.close()
