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
    """Gives these steps one after the other. An error among them is raised in its turn."""

    def __init__(self, *left: int | Exception) -> None:
        self.left = list(left)

    def take(self, _queue: str, *, seconds: float) -> Message | None:
        if not self.left:
            threading.Event().wait(min(seconds, 0.01))
            return None
        found = self.left.pop(0)
        if isinstance(found, Exception):
            raise found
        return Message(found)


@pytest.mark.parametrize("error", [RedisAway("away"), RuntimeError("a bug")])
def test_after_an_error_the_next_step_is_run(error, monkeypatch):
    monkeypatch.setattr(priority_pool, "LOOK_SECONDS", 0.01)
    ran, stopping = threading.Event(), threading.Event()
    signals: Any = Queue(error, 41)
    pool = PriorityPool(signals, lambda message: ran.set() if message.step == 41 else None, threads=1, stopping=stopping)
    try:
        assert ran.wait(20)
    finally:
        stopping.set()
        pool.close()


def test_a_message_for_which_no_thread_may_start_is_run_when_one_may(monkeypatch):
    monkeypatch.setattr(priority_pool, "LOOK_SECONDS", 0.01)
    start, refused = threading.Thread.start, threading.Event()

    def start_later(thread: threading.Thread) -> None:
        if thread.name.startswith("tight_") and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    ran, both, stopping = [], threading.Event(), threading.Event()

    def run(message: Message) -> None:
        ran.append(message.step)
        if len(ran) == 2:
            both.set()

    signals: Any = Queue(41, 42)
    pool = PriorityPool(signals, run, threads=2, stopping=stopping, queue="tight")
    try:
        assert both.wait(20)
        assert ran == [41, 42]
    finally:
        stopping.set()
        pool.close()
