"""Pools whose threads start before their work comes.

A thread pool of Python's starts a thread when it gets work and none of its threads is idle. Whoever hands the work over waits until the thread
runs. Nobody can hand work to any other pool of the process meanwhile. On a busy processor this takes milliseconds for each
thread, and a worker's first large job needs dozens of them.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from celery.concurrency.thread import TaskPool

log = structlog.get_logger(__name__)


def started_pool(threads: int, name: str = "") -> ThreadPoolExecutor:
    """A pool whose threads have started. `name`: the prefix of their names.

    If the system does not allow so many threads, the pool has none yet and starts them when it gets work. So it leaves room for the
    processes and threads that the worker starts later.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    everyone = threading.Barrier(threads)  # a thread that waits here is not idle, so the pool starts the next one
    try:
        for _ in range(threads):
            pool.submit(everyone.wait)
    except BaseException as error:
        everyone.abort()
        pool.shutdown(cancel_futures=True)
        if not isinstance(error, RuntimeError):
            raise
        log.warning("few_threads", wanted=threads, reason=str(error))
        return ThreadPoolExecutor(threads, thread_name_prefix=name)
    return pool


class StartedTaskPool(TaskPool):  # type: ignore[misc]
    """Celery's pool of threads. They have started, if the system allows it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.executor = started_pool(self.limit)
