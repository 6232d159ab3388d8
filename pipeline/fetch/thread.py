"""The thread that fetches for all batches of a Fetcher: what is asked when, and what each answer leads to.

One thread for them all: threads that each drive a few transfers spend as much CPU time again waking for one another.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from pipeline.fetch.batch import FetchBatch, FetchTask
from pipeline.fetch.hosts import HostSlots, server_of
from pipeline.fetch.loop import Loop
from pipeline.fetch.transfer import (
    Fault,
    Redirect,
    Transfer,
    after_redirect,
    timed_out,
    too_many_redirects,
    unconnected,
    unreachable,
)
from pipeline.outbound.addresses import Allowed, read_url
from pipeline.outbound.guard import Names
from pipeline.ports import TotalTooLarge
from pipeline.types import Failure, Fetched

_REDIRECTS = 10
_TRIES = 3  # requests for one hop
_MOST_TRIES = 8  # where connections fail or break, and the server has answered other requests meanwhile: it is there, but small
_BACK_OFF = 0.25  # seconds before the second try, doubled before the third, each with up to half as much again by chance
_QUICK_BACK_OFF = 0.05  # the same, where connections break of a server that answers other requests meanwhile
_LOOK_SECONDS = 0.025  # from one look at the connections that are being made to the next
_IDLE_SECONDS = 3600.0  # nothing is due: it waits to be woken

_log = logging.getLogger(__name__)


class FetchThread:
    """Runs from its start until it is stopped and no batch is left. Its public methods are for other threads."""

    def __init__(self, loop: Loop, *, names: Names, per_host: int, allow: Sequence[Allowed], deadline: float) -> None:
        self._loop = loop
        self._names = names
        self._slots = HostSlots(per_host, silence=deadline)
        self._allow = allow
        self._deadline = deadline
        self._lock = threading.Lock()
        self._posted: deque[Callable[[], None]] = deque()  # what other threads want done in ours
        self._stopped = False
        self._gone = False
        self._batches: set[FetchBatch] = set()
        self._waiting: dict[FetchBatch, None] = {}  # batches that may have something to start, in the order of their turns
        self._touched: set[FetchBatch] = set()  # batches to which something happened in this round of the loop
        self._asking: dict[Transfer, FetchTask] = {}
        self._connecting: dict[Transfer, FetchTask] = {}  # of these, the ones that had no connection at the last look
        self._next_look = 0.0  # at them
        self._deadlines: deque[FetchTask] = deque()  # of tasks, in their order
        self._sleeping: list[tuple[float, int, FetchTask]] = []  # a heap: when to try again
        self._serial = itertools.count()
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def begin(self, batch: FetchBatch) -> bool:
        """Takes the batch on; false if the thread has ended, or is about to."""
        return self._post(lambda: self._begin(batch))

    def look_again(self, batch: FetchBatch) -> None:
        """The batch's caller has taken so much that more of it may start."""
        self._post(lambda: self._look_again(batch))

    def give_up(self, batch: FetchBatch) -> None:
        """Ends what is under way for the batch and gives its slots back, before anything that is asked for later begins."""
        self._post(lambda: self._forget(batch))

    def stop(self) -> None:
        """Lets the thread end, and close its connections, when no batch is left."""

        def stop() -> None:
            self._stopped = True

        self._post(stop)

    def _post(self, what: Callable[[], None]) -> bool:
        with self._lock:
            if self._gone:
                return False
            first = not self._posted
            self._posted.append(what)
        if first:  # else it was woken already
            self._loop.wake()
        return True

    # ---- all that follows is the thread's own

    def _run(self) -> None:
        try:
            while True:
                self._take_posted()
                if self._is_over():
                    return
                self._start_what_fits()
                before = time.monotonic()
                for transfer, code in self._loop.poll(self._wait()):
                    self._answered(transfer, code)
                self._look_at_connections(before)
                self._look_at_the_clock()
                self._hand_over()
        except BaseException as error:  # noqa: BLE001 - whatever it is, every caller gets it
            _log.exception("the fetching thread failed")
            self._fail_all(error)
        finally:
            self._loop.close()

    def _is_over(self) -> bool:
        if self._stopped and not self._batches:
            with self._lock:
                self._gone = not self._posted
        return self._gone

    def _fail_all(self, error: BaseException) -> None:
        """No caller waits for a thread that is no more."""
        with self._lock:
            self._gone = True
        while self._posted:
            with contextlib.suppress(Exception):
                self._posted.popleft()()
        for batch in self._batches:
            batch.fail(error)
            batch.hand_over()

    def _take_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def _begin(self, batch: FetchBatch) -> None:
        self._batches.add(batch)
        self._waiting[batch] = None
        self._touched.add(batch)  # what its URLs' text alone shows is ready

    def _look_again(self, batch: FetchBatch) -> None:
        batch.paused = False
        if batch in self._batches:
            self._waiting[batch] = None

    def _start_what_fits(self) -> None:
        for batch in list(self._waiting):
            started = False
            for task in batch.startable(self._slots):
                started = True
                self._start(task)
            if batch not in self._batches:  # what it wanted to start has failed it
                continue
            if batch.is_full():
                batch.paused = True
                if batch.is_full():  # still: its caller sees `paused` when it takes the next value
                    self._waiting.pop(batch, None)
                    continue
                batch.paused = False
            if started or not batch.waits():
                self._waiting.pop(batch, None)
            if started and batch.waits():
                self._waiting[batch] = None  # behind the others: a host's next slot is not its again

    def _start(self, task: FetchTask) -> None:
        """Begins a request for the present hop, with a slot taken for it."""
        if not task.deadline:
            task.deadline = time.monotonic() + self._deadline
            self._deadlines.append(task)
        if self._slots.is_silent(server_of(task.target)):
            self._end(task, unreachable("the server takes no connections"))
            return
        if not task.tries:
            task.answers = self._slots.answers(server_of(task.target))
        task.tries += 1
        addresses = self._names.look_up(task.target)
        if addresses.done():
            self._ask(task, addresses)
        else:
            task.looking = addresses
            addresses.add_done_callback(partial(self._post_looked_up, [task]))

    def _post_looked_up(self, waits: list[FetchTask], addresses: Future[tuple[str, ...]]) -> None:
        """Empties the list: a future keeps its callbacks as long as it is kept itself, and the task leads to all of its batch."""
        self._post(partial(self._looked_up, waits.pop(), addresses))

    def _looked_up(self, task: FetchTask, addresses: Future[tuple[str, ...]]) -> None:
        if task.looking is addresses and not task.ended:
            task.looking = None
            self._ask(task, addresses)

    def _ask(self, task: FetchTask, addresses: Future[tuple[str, ...]]) -> None:
        refused = addresses.exception()
        if refused is not None:
            self._end(task, unreachable(str(refused)))
            return
        try:
            transfer = self._loop.lend()
            places = addresses.result()
            first = task.unconnected % len(places)  # another one each time: libcurl may wait for the first as long as we do
            transfer.aim(task.target, places[first:] + places[:first], task.batch.budget)
            self._loop.start(transfer)
        except Exception as error:  # noqa: BLE001 - out of memory or descriptors, say: it ends this batch, not those of others
            _log.exception("a request could not be made")
            self._fail(task.batch, error)
            return
        task.transfer = transfer
        task.begun = time.monotonic()
        self._asking[transfer] = task
        if not self._connecting:
            self._next_look = task.begun + _LOOK_SECONDS
        self._connecting[transfer] = task

    def _answered(self, transfer: Transfer, code: int) -> None:
        task = self._asking.pop(transfer)
        task.transfer = None
        if self._connecting.pop(transfer, None) is not None and transfer.reached():
            self._connected(task, transfer)
        outcome = transfer.result(code)
        if not isinstance(outcome, Fault) or not (outcome.unconnected or outcome.broken):
            self._slots.answered(server_of(task.target), time.monotonic() - task.begun)
        self._loop.give_back(transfer)
        self._release(task)
        if isinstance(outcome, Redirect):
            self._redirect(task, outcome)
        elif isinstance(outcome, Fault) and outcome.stale:
            task.tries -= 1
            self._enqueue(task)
        elif isinstance(outcome, Fault) and outcome.transient:
            self._try_again(task, outcome)
        else:
            self._end(task, outcome)

    def _redirect(self, task: FetchTask, redirect: Redirect) -> None:
        task.redirects += 1
        target = read_url(redirect.url, self._allow)
        if isinstance(target, str):
            # Not url_not_allowed: the caller's URL shows nothing of this, and the text must not tell what was refused where.
            self._end(task, unreachable(f"redirect: {target}"))
        elif task.redirects > _REDIRECTS:
            self._end(task, too_many_redirects(_REDIRECTS))
        else:
            task.target = target
            task.tries = task.unconnected = 0
            self._enqueue(task)

    def _connected(self, task: FetchTask, transfer: Transfer) -> None:
        self._slots.connected(server_of(task.target), None if task.unconnected else transfer.connect_seconds())

    def _look_at_connections(self, now: float) -> None:
        """Gives up connections that take too long, to try them again within the deadline.

        `now`: a time before the poller was last asked, so that a connection does not count as late because this thread was.
        """
        if now < self._next_look or not self._connecting:
            return
        self._next_look = now + _LOOK_SECONDS
        for transfer, task in list(self._connecting.items()):
            if transfer.reached():
                del self._connecting[transfer]
                self._connected(task, transfer)
            elif now - task.begun >= self._slots.patience(server_of(task.target), task.unconnected):
                self._release(task)
                self._try_again(task, unconnected("no connection in time"), late=True)

    def _try_again(self, task: FetchTask, fault: Fault, *, late: bool = False) -> None:
        """Asks for the hop once more, or ends the task. `late`: its connection was given up, which costs no try."""
        server = server_of(task.target)
        tries, most, back_off = task.tries - task.unconnected, _TRIES, _BACK_OFF
        if fault.unconnected:
            self._slots.connect_failed(server, task.begun)
            task.unconnected += 1
            tries = task.unconnected
        if (fault.unconnected or fault.broken) and self._slots.answers(server) > task.answers:
            most, back_off = _MOST_TRIES, _QUICK_BACK_OFF
        if late:
            wait = self._slots.patience(server, 0) * random.uniform(0.0, 0.5)  # noqa: S311 - spreads load, guards nothing
        else:
            wait = back_off * 2 ** (tries - 1) * random.uniform(1.0, 1.5)  # noqa: S311 - as above
        when = time.monotonic() + max(fault.retry_after, wait)
        if (late or tries < most) and when < task.deadline:
            heapq.heappush(self._sleeping, (when, next(self._serial), task))
        else:
            self._end(task, fault)

    def _enqueue(self, task: FetchTask) -> None:
        task.batch.enqueue(task)
        self._waiting[task.batch] = None

    def _wait(self) -> float:
        """Seconds until something is due."""
        if self._touched or self._posted:
            return 0.0
        while self._deadlines and self._deadlines[0].ended:
            self._deadlines.popleft()
        due = [self._deadlines[0].deadline] if self._deadlines else []
        due += [self._sleeping[0][0]] if self._sleeping else []
        due += [self._next_look] if self._connecting else []
        due += [batch.ends for batch in self._batches]
        return min(due) - time.monotonic() if due else _IDLE_SECONDS

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        while self._deadlines and (self._deadlines[0].ended or self._deadlines[0].deadline <= now):
            task = self._deadlines.popleft()
            if not task.ended:
                self._end(task, _out_of_time(task, self._deadline))
        while self._sleeping and self._sleeping[0][0] <= now:
            task = heapq.heappop(self._sleeping)[2]
            if not task.ended:
                self._enqueue(task)
        for batch in self._batches:
            if batch.ends <= now:
                for task in batch.tasks:
                    if not task.ended:
                        self._end(task, _out_of_time(task, batch.timeout))

    def _end(self, task: FetchTask, outcome: bytes | Fault) -> None:
        self._release(task)
        self._touched.add(task.batch)
        if isinstance(outcome, bytes):
            task.batch.end(task, Fetched(index=task.index, data=outcome))
            return
        detail = after_redirect(outcome.detail) if 0 < task.redirects <= _REDIRECTS else outcome.detail
        task.batch.end(task, Failure(index=task.index, code=outcome.code, detail=detail))
        # The host only: the rest of a URL may be a signature.
        facts = {"index": task.index, "host": task.target.host, "code": outcome.code.value, "reason": outcome.reason}
        _log.info("fetch failed: %s, %s", task.target.host, outcome.reason, extra=facts)

    def _release(self, task: FetchTask) -> None:
        """Leaves the hop, in whatever it is."""
        task.looking = None
        if task.transfer is not None:
            del self._asking[task.transfer]
            self._connecting.pop(task.transfer, None)
            self._loop.stop(task.transfer)
            task.transfer.drop()
            self._loop.give_back(task.transfer)
            task.transfer = None
        task.batch.displace(task, self._slots)

    def _hand_over(self) -> None:
        for batch in self._touched:
            if batch.budget.spent:
                batch.fail(TotalTooLarge())
            batch.hand_over()
            if not batch.open:
                self._forget(batch)
        self._touched.clear()

    def _fail(self, batch: FetchBatch, error: Exception) -> None:
        batch.fail(error)
        batch.hand_over()
        self._forget(batch)
        self._touched.discard(batch)

    def _forget(self, batch: FetchBatch) -> None:
        for task in batch.tasks:
            self._release(task)
            task.ended = True
        batch.forget()
        self._batches.discard(batch)
        self._waiting.pop(batch, None)


def _out_of_time(task: FetchTask, seconds: float) -> Fault:
    """A silent address reads like a refused one; only a server that was reached can be late."""
    under_way = task.looking is not None or task.transfer is not None
    if not task.tries or task.tries > task.unconnected + under_way or (task.transfer is not None and task.transfer.reached()):
        return timed_out(seconds)
    return unreachable("deadline: lookup" if task.looking is not None else "deadline: connect")
