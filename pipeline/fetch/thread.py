"""The thread that fetches for all calls of a Fetcher: what is asked when, and what each answer leads to.

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

from pipeline.fetch.batch import Call, Job, Places
from pipeline.fetch.loop import Loop
from pipeline.fetch.transfer import Fault, Redirect, Transfer, timed_out, too_many_redirects, unreachable
from pipeline.outbound.addresses import Allowed, read_url
from pipeline.outbound.guard import Names
from pipeline.ports import TotalTooLarge
from pipeline.types import Failure, Fetched

_REDIRECTS = 3
_TRIES = 3  # requests for one hop
_BACK_OFF = 0.25  # seconds before the second try, doubled before the third, each with up to half as much again by chance
_IDLE_SECONDS = 3600.0  # nothing is due: it waits to be woken

_log = logging.getLogger(__name__)


class FetchThread:
    """Runs from its start until it is stopped and no call is left. Its public methods are for other threads."""

    def __init__(self, loop: Loop, *, names: Names, per_host: int, allow: Sequence[Allowed], deadline: float) -> None:
        self._loop = loop
        self._names = names
        self._places = Places(per_host)
        self._allow = allow
        self._deadline = deadline
        self._lock = threading.Lock()
        self._posted: deque[Callable[[], None]] = deque()  # what other threads want done in ours
        self._stopped = False
        self._gone = False
        self._calls: set[Call] = set()
        self._waiting: dict[Call, None] = {}  # calls that may have something to start, in the order of their turns
        self._touched: set[Call] = set()  # calls to which something happened in this turn
        self._asking: dict[Transfer, Job] = {}
        self._deadlines: deque[Job] = deque()  # of jobs, in their order
        self._sleeping: list[tuple[float, int, Job]] = []  # a heap: when to try again
        self._serial = itertools.count()
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def begin(self, call: Call) -> bool:
        """Takes the call on; false if the thread has ended, or is about to."""
        return self._post(lambda: self._begin(call))

    def look_again(self, call: Call) -> None:
        """The call's caller has taken so much that more of it may start."""
        self._post(lambda: self._look_again(call))

    def give_up(self, call: Call) -> None:
        """Ends what is under way for the call and gives its places back, before anything that is asked for later begins."""
        self._post(lambda: self._forget(call))

    def stop(self) -> None:
        """Lets the thread end, and close its connections, when no call is left."""

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
                for transfer, code in self._loop.turn(self._wait()):
                    self._answered(transfer, code)
                self._look_at_the_clock()
                self._hand_over()
        except BaseException as error:  # noqa: BLE001 - whatever it is, every caller gets it
            _log.exception("the fetching thread failed")
            self._fail_all(error)
        finally:
            self._loop.close()

    def _is_over(self) -> bool:
        if self._stopped and not self._calls:
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
        for call in self._calls:
            call.fail(error)
            call.hand_over()

    def _take_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def _begin(self, call: Call) -> None:
        self._calls.add(call)
        self._waiting[call] = None
        self._touched.add(call)  # what its URLs' text alone shows is ready

    def _look_again(self, call: Call) -> None:
        call.paused = False
        if call in self._calls:
            self._waiting[call] = None

    def _start_what_fits(self) -> None:
        for call in list(self._waiting):
            started = False
            for job in call.startable(self._places):
                started = True
                self._start(job)
            if call not in self._calls:  # what it wanted to start has failed it
                continue
            if call.is_full():
                call.paused = True
                if call.is_full():  # still: its caller sees `paused` when it takes the next value
                    self._waiting.pop(call, None)
                    continue
                call.paused = False
            if started or not call.waits():
                self._waiting.pop(call, None)
            if started and call.waits():
                self._waiting[call] = None  # behind the others: a host's next place is not its again

    def _start(self, job: Job) -> None:
        """Begins a hop, with a place taken for it."""
        job.tries += 1
        if not job.deadline:
            job.deadline = time.monotonic() + self._deadline
            self._deadlines.append(job)
        addresses = self._names.look_up(job.target)
        if addresses.done():
            self._ask(job, addresses)
        else:
            job.looking = addresses
            addresses.add_done_callback(partial(self._post_looked_up, [job]))

    def _post_looked_up(self, waits: list[Job], addresses: Future[tuple[str, ...]]) -> None:
        """Empties the list: a future keeps its callbacks as long as it is kept itself, and the job leads to all of its call."""
        self._post(partial(self._looked_up, waits.pop(), addresses))

    def _looked_up(self, job: Job, addresses: Future[tuple[str, ...]]) -> None:
        if job.looking is addresses and not job.ended:
            job.looking = None
            self._ask(job, addresses)

    def _ask(self, job: Job, addresses: Future[tuple[str, ...]]) -> None:
        refused = addresses.exception()
        if refused is not None:
            self._end(job, unreachable(str(refused)))
            return
        try:
            transfer = self._loop.lend()
            transfer.aim(job.target, addresses.result(), job.call.budget)
            self._loop.start(transfer)
        except Exception as error:  # noqa: BLE001 - out of memory or descriptors, say: it ends this call, not those of others
            _log.exception("a request could not be made")
            self._fail(job.call, error)
            return
        job.transfer = transfer
        self._asking[transfer] = job

    def _answered(self, transfer: Transfer, code: int) -> None:
        job = self._asking.pop(transfer)
        job.transfer = None
        outcome = transfer.result(code)
        self._loop.give_back(transfer)
        self._release(job)
        if isinstance(outcome, Redirect):
            self._redirect(job, outcome)
        elif isinstance(outcome, Fault) and outcome.transient:
            self._try_again(job, outcome)
        else:
            self._end(job, outcome)

    def _redirect(self, job: Job, redirect: Redirect) -> None:
        job.redirects += 1
        target = read_url(redirect.url, self._allow)
        if isinstance(target, str):
            # Not url_not_allowed: the caller's URL shows nothing of this, and the text must not tell what was refused where.
            self._end(job, unreachable(f"redirect: {target}"))
        elif job.redirects > _REDIRECTS:
            self._end(job, too_many_redirects(_REDIRECTS))
        else:
            job.target = target
            job.tries = 0
            self._enqueue(job)

    def _try_again(self, job: Job, fault: Fault) -> None:
        back_off = _BACK_OFF * 2 ** (job.tries - 1) * random.uniform(1.0, 1.5)  # noqa: S311 - spreads load, guards nothing
        when = time.monotonic() + max(fault.retry_after, back_off)
        if job.tries < _TRIES and when < job.deadline:
            heapq.heappush(self._sleeping, (when, next(self._serial), job))
        else:
            self._end(job, fault)

    def _enqueue(self, job: Job) -> None:
        job.call.enqueue(job)
        self._waiting[job.call] = None

    def _wait(self) -> float:
        """Seconds until something is due."""
        if self._touched or self._posted:
            return 0.0
        while self._deadlines and self._deadlines[0].ended:
            self._deadlines.popleft()
        due = [self._deadlines[0].deadline] if self._deadlines else []
        due += [self._sleeping[0][0]] if self._sleeping else []
        due += [call.ends for call in self._calls]
        return min(due) - time.monotonic() if due else _IDLE_SECONDS

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        while self._deadlines and (self._deadlines[0].ended or self._deadlines[0].deadline <= now):
            job = self._deadlines.popleft()
            if not job.ended:
                self._end(job, _out_of_time(job, self._deadline))
        while self._sleeping and self._sleeping[0][0] <= now:
            job = heapq.heappop(self._sleeping)[2]
            if not job.ended:
                self._enqueue(job)
        for call in self._calls:
            if call.ends <= now:
                for job in call.jobs:
                    if not job.ended:
                        self._end(job, _out_of_time(job, call.timeout))

    def _end(self, job: Job, outcome: bytes | Fault) -> None:
        self._release(job)
        self._touched.add(job.call)
        if isinstance(outcome, bytes):
            job.call.end(job, Fetched(index=job.index, data=outcome))
            return
        job.call.end(job, Failure(index=job.index, code=outcome.code, detail=outcome.detail))
        # The host only: the rest of a URL may be a signature.
        facts = {"index": job.index, "host": job.target.host, "code": outcome.code.value, "reason": outcome.reason}
        _log.info("fetch failed: %s, %s", job.target.host, outcome.reason, extra=facts)

    def _release(self, job: Job) -> None:
        """Leaves the hop, in whatever it is."""
        job.looking = None
        if job.transfer is not None:
            del self._asking[job.transfer]
            self._loop.stop(job.transfer)
            job.transfer.drop()
            self._loop.give_back(job.transfer)
            job.transfer = None
        job.call.displace(job, self._places)

    def _hand_over(self) -> None:
        for call in self._touched:
            if call.budget.spent:
                call.fail(TotalTooLarge())
            call.hand_over()
            if not call.open:
                self._forget(call)
        self._touched.clear()

    def _fail(self, call: Call, error: Exception) -> None:
        call.fail(error)
        call.hand_over()
        self._forget(call)
        self._touched.discard(call)

    def _forget(self, call: Call) -> None:
        for job in call.jobs:
            self._release(job)
            job.ended = True
        call.forget()
        self._calls.discard(call)
        self._waiting.pop(call, None)


def _out_of_time(job: Job, seconds: float) -> Fault:
    """A silent address reads like a refused one; only a server that was reached can be late."""
    if job.looking is not None:
        return unreachable("deadline: lookup")
    if job.transfer is not None and not job.transfer.reached():
        return unreachable("deadline: connect")
    return timed_out(seconds)
