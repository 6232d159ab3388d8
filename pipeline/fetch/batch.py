"""The batch of URLs that one caller of a Fetcher asked for: its tasks, which of them may start next, and their results."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue

from pipeline.fetch.hosts import HostSlots, Server, server_of
from pipeline.fetch.transfer import Budget, Transfer
from pipeline.outbound.addresses import Allowed, Target, read_url
from pipeline.outbound.lookup_turns import Asker
from pipeline.turns import current_account, current_job
from pipeline.types import MB, Failure, Fetched, ItemCode

_log = logging.getLogger(__name__)

#: If more bytes than this wait for the caller, no further fetch is started for it. Fetches that have started still finish.
_MOST_WAITING = 32 * MB
_NUMBERS = itertools.count()


@dataclass(kw_only=True, slots=True, eq=False)
class FetchTask:
    """The fetch of one URL. It waits for its turn, for its name's addresses, for the server, or for the time of its next try."""

    batch: FetchBatch
    index: int
    target: Target  #: what the present hop asks for
    deadline: float = 0.0  #: the time at which the fetch fails, by the monotonic clock; 0: the fetch has not started
    redirects: int = 0  #: redirects followed so far
    tries: int = 0  #: requests for the present hop
    unconnected: int = 0  #: how many of these requests never had a connection
    begun: float = 0.0  #: when the present request began, by the monotonic clock
    answers: int = 0  #: how many answers the present hop's server had given before the first of these requests
    placed: bool = False  #: whether the task holds a slot of its server
    looking: Future[tuple[str, ...]] | None = None  #: the lookup of its name, while it runs
    transfer: Transfer | None = None  #: the request, while it runs
    ended: bool = False  #: whether the task has its result


class FetchBatch:
    """The tasks of one call. Once a batch is handed over, only the fetching thread uses it; the caller uses only `results`."""

    def __init__(
        self, urls: Iterable[tuple[int, str]], *, allow: Sequence[Allowed], total: int, parallel: int, timeout: float
    ) -> None:
        self.context = copy_context()  #: of the caller's log lines: they name the request, the job and the account
        self.asker = Asker(current_account(), current_job())  #: in whose turn names are looked up and fetches start
        self.number = next(_NUMBERS)  #: batches count up as they are made
        self.budget = Budget(total)
        self.timeout = timeout
        self.ends = time.monotonic() + timeout
        self.tasks: list[FetchTask] = []
        self.open = 0  #: tasks that have not ended
        self.paused = False  #: whether the fetching thread starts nothing more until the caller calls `look_again`
        self._parallel = parallel
        self._placed = 0  # tasks that hold a slot
        self._queues: dict[Server, deque[FetchTask]] = {}  # the tasks that may start, by server
        self._ready: list[Fetched | Failure] = []
        self._over: BaseException | None = None
        self._given = 0  # bytes handed to the caller
        self._taken = 0  # bytes that the caller has taken out of `results`
        self._results: SimpleQueue[tuple[list[Fetched | Failure], bool]] = SimpleQueue()
        for index, url in urls:
            target = read_url(url, allow)
            if isinstance(target, str):
                self._ready.append(Failure(index=index, code=ItemCode.URL_NOT_ALLOWED, detail=target))
                facts = {"index": index, "code": ItemCode.URL_NOT_ALLOWED.value, "reason": target}
                _log.info("fetch failed: %s", target, extra=facts)
            else:
                task = FetchTask(batch=self, index=index, target=target)
                self.tasks.append(task)
                self.open += 1
                self.enqueue(task)

    def results(self) -> Iterator[tuple[Fetched | Failure, bool]]:
        """Yields each value as it completes, and whether the caller has to call `look_again` so that more tasks start.

        If the batch failed, it raises the error that `fail` was given.
        """
        more = True
        while more:
            values, more = self._results.get()
            values.reverse()
            while values:
                value = values.pop()  # the list must not keep a body in memory after the caller has dropped it
                self._taken += _size(value)
                # `_taken` must be raised before `paused` is read, because the thread sets `paused` and then reads `_taken` again.
                # In the other order, both could miss the other's change, and the batch would stay paused.
                yield value, self.paused and not self.is_full()
        over, self._over = self._over, None
        if over is not None:
            try:
                raise over
            finally:
                del over  # the error's traceback refers to this frame, so keeping it would make a reference cycle

    def is_full(self) -> bool:
        """Whether so many bytes wait for the caller that no further task may start."""
        return self._given - self._taken > _MOST_WAITING

    def enqueue(self, task: FetchTask) -> None:
        """Queues the task, so that it starts when its server has a free slot."""
        queue = self._queues.setdefault(server_of(task.target), deque())
        if task.deadline:
            queue.appendleft(task)  # it goes first, because its deadline is running
        else:
            queue.append(task)

    def servers(self) -> list[Server]:
        """The servers that tasks wait for."""
        return list(self._queues)

    def waits_at(self, server: Server) -> bool:
        """Whether a task waits for a slot of the server."""
        queue = self._queues.get(server)
        while queue and queue[0].ended:
            queue.popleft()
        if not queue:
            self._queues.pop(server, None)
        return bool(queue)

    def may_start(self) -> bool:
        """Whether one more task may be under way."""
        return self._placed < self._parallel and not self.is_full()

    def take(self, server: Server) -> FetchTask:
        """The next task for the server, which `waits_at` has found. The caller has taken a slot for it."""
        task = self._queues[server].popleft()
        task.placed = True
        self._placed += 1
        return task

    def displace(self, task: FetchTask, slots: HostSlots) -> None:
        """Gives the task's slot back, if it has one."""
        if task.placed:
            task.placed = False
            self._placed -= 1
            slots.give_back(server_of(task.target))

    def end(self, task: FetchTask, value: Fetched | Failure) -> None:
        """Records the task's result. `hand_over` passes it to the caller."""
        task.ended = True
        self.open -= 1
        self._ready.append(value)

    def forget(self) -> None:
        """Drops the tasks. They refer to the batch, so keeping them would make a reference cycle."""
        self.tasks.clear()
        self._queues.clear()

    def fail(self, error: BaseException) -> None:
        """Fails the whole batch: `results` raises this error, and results that were not handed over are dropped."""
        self._over = error
        self._ready.clear()
        self.open = 0

    def hand_over(self) -> None:
        """Passes the results that are ready to the caller."""
        ready, self._ready = self._ready, []
        self._given += sum(map(_size, ready))
        if ready or not self.open:
            self._results.put((ready, self.open > 0))


def _size(value: Fetched | Failure) -> int:
    return len(value.data) if isinstance(value, Fetched) else 0
