"""The thread that fetches for all batches of a Fetcher. It decides when a request starts and what follows from its answer.

One thread serves all batches, because threads that each drive a few transfers spend as much CPU time again on waking each other.
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
from pipeline.fetch.faults import Fault, timed_out, unconnected, unreachable
from pipeline.fetch.hosts import HostSlots, Server, server_of
from pipeline.fetch.line import Line
from pipeline.fetch.loop import Loop
from pipeline.fetch.redirects import Redirect, after_redirect, judge
from pipeline.fetch.transfer import Transfer
from pipeline.outbound.addresses import Allowed
from pipeline.outbound.guard import Names
from pipeline.ports import TotalTooLarge
from pipeline.types import Failure, Fetched

_TRIES = 3  # requests for one hop
_MOST_TRIES = 8  # requests for one hop if connections fail or break while the server answers others: it works, but it is small
_BACK_OFF = 0.25  # seconds before the second try; the wait doubles with each try, and a random part of up to half is added
_QUICK_BACK_OFF = 0.05  # the same for a server whose connections fail or break while it answers other requests
_LOOK_SECONDS = 0.025  # how often the connections that are being made are checked
_IDLE_SECONDS = 3600.0  # the longest wait of a thread that has nothing to do; a new batch wakes it

_log = logging.getLogger(__name__)


class FetchThread:
    """The thread runs until it is stopped and no batch is left. Other threads call the public methods."""

    def __init__(self, loop: Loop, *, names: Names, per_host: int, allow: Sequence[Allowed], deadline: float) -> None:
        self._loop = loop
        self._names = names
        self._slots = HostSlots(per_host, silence=deadline)
        self._allow = allow
        self._deadline = deadline
        self._lock = threading.Lock()
        self._posted: deque[Callable[[], None]] = deque()  # the calls that other threads want this thread to make
        self._stopped = False
        self._gone = False
        self._batches: set[FetchBatch] = set()
        self._line = Line()  # batches that may have something to start
        self._touched: set[FetchBatch] = set()  # batches to which something happened in this round of the loop
        self._asking: dict[Transfer, FetchTask] = {}
        self._connecting: dict[Transfer, FetchTask] = {}  # those in _asking that had no connection at the last check
        self._next_look = 0.0  # when the transfers in _connecting are checked next
        self._deadlines: deque[FetchTask] = deque()  # started tasks, in the order of their deadlines
        self._sleeping: list[tuple[float, int, FetchTask]] = []  # a heap of the tasks to try again, by the time of that try
        self._serial = itertools.count()
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def begin(self, batch: FetchBatch) -> bool:
        """Takes the batch on. Returns false if the thread has ended or is about to end."""
        return self._post(lambda: self._begin(batch))

    def look_again(self, batch: FetchBatch) -> None:
        """Starts further tasks of the batch, because its caller has taken enough of the results."""
        self._post(lambda: self._look_again(batch))

    def give_up(self, batch: FetchBatch) -> None:
        """Stops the batch's fetches and gives its slots back. This happens before any batch that is handed over later begins."""
        self._post(lambda: self._forget(batch))

    def stop(self) -> None:
        """Makes the thread end and close its connections once no batch is left."""

        def stop() -> None:
            self._stopped = True

        self._post(stop)

    def _post(self, what: Callable[[], None]) -> bool:
        with self._lock:
            if self._gone:
                return False
            first = not self._posted
            self._posted.append(what)
        if first:  # otherwise the thread was woken already
            self._loop.wake()
        return True

    # ---- only the thread itself calls the methods below

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
        except BaseException as error:  # noqa: BLE001 - every caller has to get the error, whatever its class is
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
        """Fails all batches with the error, so that no caller waits for a thread that has ended."""
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
        self._line.add(batch)
        self._touched.add(batch)  # failures of URLs that were refused by their text alone are ready

    def _look_again(self, batch: FetchBatch) -> None:
        batch.paused = False
        if batch in self._batches:
            self._line.add(batch)

    def _start_what_fits(self) -> None:
        servers = self._line.servers()
        while servers:  # one after the other, because a batch has a number of fetches for all of its servers
            servers = [server for server in servers if self._start_one(server)]

    def _start_one(self, server: Server) -> bool:
        """Starts the next fetch from the server, if it has a free slot. Returns whether it did."""
        batch = self._line.next_at(server, partial(self._may_start, server))
        if batch is None or not self._slots.take(server):
            return False
        task = batch.take(server)
        self._line.had_turn(batch, server)
        if not batch.waits_at(server):
            self._line.discard(batch, server)
        self._start(task)
        return True

    def _may_start(self, server: Server, batch: FetchBatch) -> bool:
        """Whether the batch has a task for the server that may start now. A batch that starts nothing for long leaves the line."""
        if not batch.waits_at(server):
            self._line.discard(batch, server)
            return False
        if batch.is_full():
            batch.paused = True
            if batch.is_full():  # it is still full, so its caller sees `paused` when it takes the next value
                self._line.forget(batch)
                return False
            batch.paused = False
        return batch.may_start()

    def _start(self, task: FetchTask) -> None:
        """Begins a request for the present hop. The task has already taken a slot for it."""
        if not task.deadline:
            task.deadline = time.monotonic() + self._deadline
            self._deadlines.append(task)
        if self._slots.is_silent(server_of(task.target)):
            self._end(task, unreachable("the server takes no connections"))
            return
        if not task.tries:
            task.answers = self._slots.answers(server_of(task.target))
        task.tries += 1
        addresses = self._names.look_up(task.target, task.batch.asker)
        if addresses.done():
            self._ask(task, addresses)
        else:
            task.looking = addresses
            addresses.add_done_callback(partial(self._post_looked_up, [task]))

    def _post_looked_up(self, waits: list[FetchTask], addresses: Future[tuple[str, ...]]) -> None:
        """Passes the lookup's result to this thread, and empties the list `waits`, which holds the task.

        A future keeps its callbacks, and with them the list. The list must be empty, because a task refers to its whole batch.
        """
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
            # Each try begins with another address, because libcurl may wait for the first one until this thread gives up.
            first = task.unconnected % len(places)
            transfer.aim(task.target, places[first:] + places[:first], task.batch.budget)
            self._loop.start(transfer)
        except Exception as error:  # noqa: BLE001 - a lack of memory or descriptors, for example, must end only this batch
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
        keeps, outcome = transfer.keeps(code), transfer.result(code)
        if not isinstance(outcome, Fault) or not (outcome.unconnected or outcome.broken):
            self._slots.answered(server_of(task.target), time.monotonic() - task.begun, keeps=keeps)
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
        target = judge(redirect, number=task.redirects, allow=self._allow)
        if isinstance(target, Fault):
            self._end(task, target)
        else:
            task.target = target
            task.tries = task.unconnected = 0
            self._enqueue(task)

    def _connected(self, task: FetchTask, transfer: Transfer) -> None:
        self._slots.connected(server_of(task.target), None if task.unconnected else transfer.connect_seconds())

    def _look_at_connections(self, now: float) -> None:
        """Gives up connections that take too long, so that they are tried again within the deadline.

        `now`: a time before the poller was last called. With a later time, a connection would count as late if this thread was late.
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
        """Asks for the hop once more, or ends the task. `late`: the connection was given up, which does not use up a try."""
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
        self._line.add_at(server_of(task.target), task.batch)

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
        detail = after_redirect(outcome.detail, number=task.redirects)
        task.batch.end(task, Failure(index=task.index, code=outcome.code, detail=detail))
        # The log gets only the host, because the rest of a URL may be a signature.
        facts = {"index": task.index, "host": task.target.host, "code": outcome.code.value, "reason": outcome.reason}
        text = "fetch failed: %s, %s"
        task.batch.context.run(_log.info, text, task.target.host, outcome.reason, extra=facts)

    def _release(self, task: FetchTask) -> None:
        """Ends the task's lookup or request for the present hop, if there is one, and gives its slot back."""
        if task.looking is not None:
            self._names.give_up(task.looking)
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
        self._line.forget(batch)
        batch.forget()
        self._batches.discard(batch)


def _out_of_time(task: FetchTask, seconds: float) -> Fault:
    """The fault of a task whose time is over. It is a timeout if the server was reached, or if no request for the hop has begun.

    Otherwise the text is that of an unreachable server, so that nobody can tell a silent address from a refused one.
    """
    under_way = task.looking is not None or task.transfer is not None
    if not task.tries or task.tries > task.unconnected + under_way or (task.transfer is not None and task.transfer.reached()):
        return timed_out(seconds)
    return unreachable("deadline: lookup" if task.looking is not None else "deadline: connect")
