"""Pools whose threads start before their work comes.

A pool of Python starts a thread when it gets work and none of its threads is idle. Whoever hands the work over waits until the thread runs, and all
other pools of the process wait too. On a busy processor this takes milliseconds for each thread, and a worker's first large job
needs dozens of them.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from celery.concurrency.thread import TaskPool

log = structlog.get_logger(__name__)


def start_threads(pool: ThreadPoolExecutor, threads: int) -> None:
    """Starts all `threads` of the pool, which must be new.

    If the system allows fewer, the pool begins with those. Like any pool, it starts another one when it gets work and none is idle.
    """
    everyone = threading.Barrier(threads)  # a thread that waits here is not idle, so the pool starts the next one
    try:
        for _ in range(threads):
            pool.submit(everyone.wait)
    except RuntimeError as error:
        everyone.abort()
        log.warning("few_threads", wanted=threads, reason=str(error))


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads have started. `name`: the prefix of their names."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    start_threads(pool, threads)
    return pool


class StartedTaskPool(TaskPool):  # type: ignore[misc]
    """Celery's pool of threads. They have started."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        start_threads(self.executor, self.limit)
