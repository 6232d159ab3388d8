"""Threads beside Celery's: those that serve only steps whose caller waits, and spare ones while other threads wait for servers.

Large jobs can keep all other threads busy, but not those that serve only steps whose caller waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty

import structlog
from celery import Celery

from storage.redis.errors import AWAY
from storage.redis.messages import step_of
from storage.redis.signals import WAITED_QUEUE
from workers.lending import LentPlaces

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0  #: how often `stopping` is checked, and how soon Redis is tried again


class PriorityPool:
    """Takes a message off its queue only when a thread is free for it.

    `queue`: without it, the queue of waited steps. `places`: without them, as many as `threads`.
    """

    def __init__(
        self,
        app: Celery,
        run: Callable[[int], None],
        *,
        threads: int,
        stopping: threading.Event,
        queue: str = "",
        places: LentPlaces | None = None,
    ) -> None:
        self._app = app
        self._queue = queue or WAITED_QUEUE
        self._run_step = run
        self._stopping = stopping
        self._free = places or threading.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=self._queue)
        self._listener = threading.Thread(target=self._listen, name=self._queue, daemon=True)
        self._listener.start()

    def close(self) -> None:
        """Waits until the running steps have ended. `stopping` must be set before."""
        self._listener.join()
        self._pool.shutdown()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take()
            except AWAY as error:
                log.warning("queue_not_read", queue=self._queue, reason=repr(error))
                self._stopping.wait(LOOK_SECONDS)

    def _take(self) -> None:
        """Takes messages until `stopping` is set. Raises one of AWAY if the connection breaks."""
        with self._app.connection_for_read() as connection, connection.SimpleQueue(self._queue, no_ack=True) as queue:
            while not self._stopping.is_set():
                if not self._free.acquire(timeout=LOOK_SECONDS):
                    continue
                taken = False
                try:
                    with suppress(Empty):
                        # The message is not acknowledged: Redis drops it when it is taken. A lost message is sent again, and two
                        # trips to Redis for each message are saved.
                        message = queue.get(timeout=LOOK_SECONDS)
                        self._pool.submit(self._work, step_of(message.payload))
                        taken = True
                finally:
                    if not taken:
                        self._free.release()

    def _work(self, step: int) -> None:
        try:
            self._run_step(step)
        except Exception:
            log.exception("step_crashed", step=step)
        finally:
            self._free.release()
