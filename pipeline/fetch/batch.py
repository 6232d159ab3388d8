"""The URLs that one caller of a Fetcher asked for: what it asked for, what of it may start next, and what has come of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from pipeline.fetch.hosts import HostSlots, Server, server_of
from pipeline.fetch.transfer import Budget, Transfer
from pipeline.outbound.addresses import Allowed, Target, read_url
from pipeline.types import MB, Failure, Fetched, ItemCode

#: Bytes that may wait for the caller before nothing more is started for it; what is under way still comes.
_MOST_WAITING = 32 * MB


@dataclass(kw_only=True, slots=True, eq=False)
class FetchTask:
    """One URL: waiting for its turn, for its name's addresses, for the server, or for the time of its next try."""

    batch: FetchBatch
    index: int
    target: Target  #: of the present hop
    deadline: float = 0.0  #: by the monotonic clock; 0: not started yet
    redirects: int = 0
    tries: int = 0  #: requests for the present hop
    unconnected: int = 0  #: of these, how many never had a connection
    begun: float = 0.0  #: by the monotonic clock: when the present request began
    answers: int = 0  #: that the present hop's server had given before the first of these requests
    placed: bool = False  #: holds a slot of its server
    looking: Future[tuple[str, ...]] | None = None  #: while its name is looked up
    transfer: Transfer | None = None  #: while the server is asked
    ended: bool = False


class FetchBatch:
    """Belongs to the fetching thread once it was handed over; only `results` is the caller's."""

    def __init__(
        self, urls: Iterable[tuple[int, str]], *, allow: Sequence[Allowed], total: int, parallel: int, timeout: float
    ) -> None:
        self.budget = Budget(total)
        self.timeout = timeout
        self.ends = time.monotonic() + timeout
        self.tasks: list[FetchTask] = []
        self.open = 0  #: tasks that have not ended
        self.paused = False  #: the fetching thread starts nothing more until it is told to look again
        self._parallel = parallel
        self._placed = 0  # tasks that hold a place
        self._queues: dict[Server, deque[FetchTask]] = {}  # what may start, by server
        self._servers: deque[Server] = deque()  # the servers of _queues, in the order of their turns
        self._ready: list[Fetched | Failure] = []
        self._over: BaseException | None = None
        self._given = 0  # bytes handed to the caller
        self._taken = 0  # bytes the caller has done with
        self._results: SimpleQueue[tuple[list[Fetched | Failure], bool]] = SimpleQueue()
        for index, url in urls:
            target = read_url(url, allow)
            if isinstance(target, str):
                self._ready.append(Failure(index=index, code=ItemCode.URL_NOT_ALLOWED, detail=target))
            else:
                task = FetchTask(batch=self, index=index, target=target)
                self.tasks.append(task)
                self.open += 1
                self.enqueue(task)

    def results(self) -> Iterator[tuple[Fetched | Failure, bool]]:
        """Each value as it completes, and whether the fetching thread is to look again at what it may start.

        Raises what the batch was failed with.
        """
        more = True
        while more:
            values, more = self._results.get()
            values.reverse()
            while values:
                value = values.pop()  # no list holds the bodies that the caller has done with
                self._taken += _size(value)
                # In this order: the thread sets `paused`, and then looks again at what was taken.
                yield value, self.paused and not self.is_full()
        over, self._over = self._over, None
        if over is not None:
            try:
                raise over
            finally:
                del over  # it holds this frame

    def is_full(self) -> bool:
        """Whether so much waits for the caller that nothing more is to be started."""
        return self._given - self._taken > _MOST_WAITING

    def enqueue(self, task: FetchTask) -> None:
        """The task may start when its server has a place."""
        server = server_of(task.target)
        if server not in self._queues:
            self._queues[server] = deque()
            self._servers.append(server)
        if task.deadline:
            self._queues[server].appendleft(task)  # its time is running
        else:
            self._queues[server].append(task)

    def startable(self, slots: HostSlots) -> Iterator[FetchTask]:
        """What may start now, each server in turn, with a place taken for it."""
        full: list[Server] = []
        while self._servers and self._placed < self._parallel and not self.is_full():
            server = self._servers.popleft()
            queue = self._queues[server]
            while queue and queue[0].ended:
                queue.popleft()
            if not queue:
                del self._queues[server]
            elif slots.take(server):
                self._servers.append(server)
                task = queue.popleft()
                task.placed = True
                self._placed += 1
                yield task
            else:
                full.append(server)
        self._servers.extend(full)

    def waits(self) -> bool:
        """Whether there may be something to start once there is a place for it."""
        return bool(self._servers)

    def displace(self, task: FetchTask, slots: HostSlots) -> None:
        """Gives the task's place back, if it has one."""
        if task.placed:
            task.placed = False
            self._placed -= 1
            slots.give_back(server_of(task.target))

    def end(self, task: FetchTask, value: Fetched | Failure) -> None:
        """The task has come to this."""
        task.ended = True
        self.open -= 1
        self._ready.append(value)

    def forget(self) -> None:
        """Lets go of the tasks, which hold the batch."""
        self.tasks.clear()
        self._queues.clear()
        self._servers.clear()

    def fail(self, error: BaseException) -> None:
        """The whole batch comes to this."""
        self._over = error
        self._ready.clear()
        self.open = 0

    def hand_over(self) -> None:
        """What is ready, to the caller."""
        ready, self._ready = self._ready, []
        self._given += sum(map(_size, ready))
        if ready or not self.open:
            self._results.put((ready, self.open > 0))


def _size(value: Fetched | Failure) -> int:
    return len(value.data) if isinstance(value, Fetched) else 0
