"""Threads beside Celery's: those for steps whose caller waits, those for slow steps, and spare ones while others wait for servers.

Large jobs can keep all of Celery's threads busy, but none of those that serve steps whose caller waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from storage.redis.errors import AWAY
from storage.redis.messages import Message
from storage.redis.signals import WAITED_QUEUE, Signals
from workers.lending import LentPlaces

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0  #: how often `stopping` is checked, and how soon Redis is tried again


class PriorityPool:
    """Takes a message off its queue only when a thread is free for it.

    `queue`: without it, the queue of waited steps. `places`: without them, as many as `threads`.
    """

    def __init__(
        self,
        signals: Signals,
        run: Callable[[Message], None],
        *,
        threads: int,
        stopping: threading.Event,
        queue: str = "",
        places: LentPlaces | None = None,
    ) -> None:
        self._signals = signals
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
            if self._free.acquire(timeout=LOOK_SECONDS) and not self._take():
                self._free.release()

    def _take(self) -> bool:
        """Starts the step of the next message, if one comes soon. Returns whether it did.

        Redis drops the message when it is taken. If it is lost then, the supervisor announces the step again.
        """
        try:
            message = self._signals.take(self._queue, seconds=LOOK_SECONDS)
        except AWAY as error:
            log.warning("queue_not_read", queue=self._queue, reason=repr(error))
            self._stopping.wait(LOOK_SECONDS)
            return False
        except Exception:  # the thread must survive any error, because nothing else reads this queue here
            log.exception("queue_not_read", queue=self._queue)
            self._stopping.wait(LOOK_SECONDS)
            return False
        if message is None:
            return False
        try:
            self._pool.submit(self._work, message)
        except RuntimeError as error:  # the system allows no other thread now; the pool keeps the message for one that comes free
            log.warning("few_threads", queue=self._queue, reason=str(error))
        return True

    def _work(self, message: Message) -> None:
        try:
            self._run_step(message)
        except Exception:
            log.exception("step_crashed", step=message.step)
        finally:
            self._free.release()
