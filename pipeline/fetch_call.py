"""One call of a Fetcher: which URL is asked for when, and what its answers come to."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.addresses import Allowed, Target, read_url
from pipeline.fetch_guard import Names
from pipeline.fetch_loop import Loop
from pipeline.fetch_transfer import Budget, Fault, Redirect, Transfer, timed_out, too_many_redirects, unreachable
from pipeline.ports import TotalTooLarge
from pipeline.types import Failure, Fetched, ItemCode

_REDIRECTS = 3
_TRIES = 3  # requests for one hop
_BACK_OFF = 0.25  # seconds before the second try, doubled before the third, each with up to half as much again by chance
_PLACE_WAIT = 0.02  # seconds between looks for a place at a host that other calls have filled

_log = logging.getLogger(__name__)


class Places:
    """How many fetches are under way at each host, all calls together. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, host: str) -> bool:
        """Takes one place, if there is one."""
        with self._lock:
            if self._taken[host] >= self._most:
                return False
            self._taken[host] += 1
            return True

    def give_back(self, host: str) -> None:
        with self._lock:
            self._taken[host] -= 1
            if not self._taken[host]:
                del self._taken[host]


@dataclass(kw_only=True, slots=True, eq=False)
class _Job:
    """One URL: waiting for its turn, for its name's addresses, for the server, or for the time of its next try."""

    index: int
    target: Target  #: of the present hop
    deadline: float = 0.0  #: on the call's clock; 0: not started yet
    redirects: int = 0
    tries: int = 0  #: of the present hop
    placed: bool = False  #: holds a place at its host
    transfer: Transfer | None = None  #: while the server is asked
    ended: bool = False


class Call:
    """The state of one call."""

    def __init__(
        self,
        *,
        loop: Loop,
        names: Names,
        places: Places,
        allow: Sequence[Allowed],
        budget: Budget,
        parallel: int,
        deadline: float,
        timeout: float,
    ) -> None:
        self._loop = loop
        self._names = names
        self._places = places
        self._allow = allow
        self._budget = budget
        self._parallel = parallel
        self._deadline = deadline
        self._timeout = timeout
        self._held = 0.0  # seconds for which the caller held values
        self._jobs: list[_Job] = []
        self._open = 0  # jobs that have not ended
        self._placed = 0  # jobs that hold a place
        self._queues: dict[str, deque[_Job]] = {}  # what may start, by host
        self._turns: deque[str] = deque()  # the hosts of _queues, in the order of their turns
        self._started: deque[_Job] = deque()  # in the order of their deadlines
        self._looking: dict[_Job, Future[tuple[str, ...]]] = {}
        self._asking: dict[Transfer, _Job] = {}
        self._sleeping: list[tuple[float, int, _Job]] = []  # a heap: when to try again
        self._serial = itertools.count()
        self._ready: deque[Fetched | Failure] = deque()

    def results(self, urls: Iterable[tuple[int, str]]) -> Iterator[Fetched | Failure]:
        end = time.monotonic() + self._timeout
        for index, url in urls:
            self._accept(index, url)
        while True:
            while self._ready:
                given = time.monotonic()
                yield self._ready.popleft()
                self._held += time.monotonic() - given
            if not self._open:
                return
            left = end - time.monotonic()
            if left > 0:
                self._advance(left)
            else:
                self._end_all()

    def give_up(self) -> None:
        """Takes out what is under way, and gives its places back."""
        for job in [*self._looking, *self._asking.values()]:
            self._release(job)

    def _now(self) -> float:
        """The call's clock: it stands while the caller holds a value, so that a slow caller makes no server late."""
        return time.monotonic() - self._held

    def _accept(self, index: int, url: str) -> None:
        target = read_url(url, self._allow)
        if isinstance(target, str):
            self._ready.append(Failure(index=index, code=ItemCode.URL_NOT_ALLOWED, detail=target))
            return
        job = _Job(index=index, target=target)
        self._jobs.append(job)
        self._open += 1
        self._enqueue(job)

    def _advance(self, most: float) -> None:
        """Starts what fits, waits up to `most` seconds for something to happen, and deals with it."""
        short_of_places = self._start_what_fits()
        waits = [most]
        if self._ready:
            waits.append(0.0)
        if short_of_places:
            waits.append(_PLACE_WAIT)
        while self._started and self._started[0].ended:
            self._started.popleft()
        if self._started:
            waits.append(self._started[0].deadline - self._now())
        if self._sleeping:
            waits.append(self._sleeping[0][0] - self._now())
        for transfer, code in self._loop.turn(min(waits)):
            self._answered(transfer, code)
        for job in [job for job, addresses in self._looking.items() if addresses.done()]:
            self._ask(job, self._looking.pop(job))
        self._look_at_the_clock()
        if self._budget.spent:
            raise TotalTooLarge

    def _start_what_fits(self) -> bool:
        """Each host in turn. Returns whether some host had no place left."""
        full: list[str] = []
        while self._turns and self._placed < self._parallel:
            host = self._turns.popleft()
            queue = self._queues[host]
            while queue and queue[0].ended:
                queue.popleft()
            if not queue:
                del self._queues[host]
            elif self._places.take(host):
                self._start(queue.popleft())
                self._turns.append(host)
            else:
                full.append(host)
        self._turns.extend(full)
        return bool(full)

    def _enqueue(self, job: _Job) -> None:
        host = job.target.host
        if host not in self._queues:
            self._queues[host] = deque()
            self._turns.append(host)
        if job.deadline:
            self._queues[host].appendleft(job)  # its time is running
        else:
            self._queues[host].append(job)

    def _start(self, job: _Job) -> None:
        """Begins a hop, with a place taken for it."""
        job.placed = True
        self._placed += 1
        job.tries += 1
        if not job.deadline:
            job.deadline = self._now() + self._deadline
            self._started.append(job)
        addresses = self._names.look_up(job.target)
        if addresses.done():
            self._ask(job, addresses)
        else:
            self._looking[job] = addresses
            addresses.add_done_callback(self._loop.wake)

    def _ask(self, job: _Job, addresses: Future[tuple[str, ...]]) -> None:
        refused = addresses.exception()
        if refused is not None:
            self._end(job, unreachable(str(refused)))
            return
        job.transfer = self._loop.lend()
        job.transfer.aim(job.target, addresses.result(), self._budget)
        self._asking[job.transfer] = job
        self._loop.start(job.transfer)

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

    def _redirect(self, job: _Job, redirect: Redirect) -> None:
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

    def _try_again(self, job: _Job, fault: Fault) -> None:
        back_off = _BACK_OFF * 2 ** (job.tries - 1) * random.uniform(1.0, 1.5)  # noqa: S311 - spreads load, guards nothing
        when = self._now() + max(fault.retry_after, back_off)
        if job.tries < _TRIES and when < job.deadline:
            heapq.heappush(self._sleeping, (when, next(self._serial), job))
        else:
            self._end(job, fault)

    def _look_at_the_clock(self) -> None:
        now = self._now()
        while self._started and (self._started[0].ended or self._started[0].deadline <= now):
            job = self._started.popleft()
            if not job.ended:
                self._end(job, self._out_of_time(job, self._deadline))
        while self._sleeping and self._sleeping[0][0] <= now:
            job = heapq.heappop(self._sleeping)[2]
            if not job.ended:
                self._enqueue(job)

    def _out_of_time(self, job: _Job, seconds: float) -> Fault:
        """A silent address reads like a refused one; only a server that was reached can be late."""
        if job in self._looking:
            return unreachable("deadline: lookup")
        if job.transfer is not None and not job.transfer.reached():
            return unreachable("deadline: connect")
        return timed_out(seconds)

    def _end_all(self) -> None:
        """Ends every open job: the time of the whole call is over."""
        for job in self._jobs:
            if not job.ended:
                self._end(job, self._out_of_time(job, self._timeout))

    def _end(self, job: _Job, outcome: bytes | Fault) -> None:
        self._release(job)
        job.ended = True
        self._open -= 1
        if isinstance(outcome, bytes):
            self._ready.append(Fetched(index=job.index, data=outcome))
            return
        self._ready.append(Failure(index=job.index, code=outcome.code, detail=outcome.detail))
        # The host only: the rest of a URL may be a signature.
        facts = {"index": job.index, "host": job.target.host, "code": outcome.code.value, "reason": outcome.reason}
        _log.info("fetch failed: %s, %s", job.target.host, outcome.reason, extra=facts)

    def _release(self, job: _Job) -> None:
        """Leaves the hop, in whatever it is."""
        self._looking.pop(job, None)
        if job.transfer is not None:
            del self._asking[job.transfer]
            self._loop.stop(job.transfer)
            job.transfer.drop()
            self._loop.give_back(job.transfer)
            job.transfer = None
        if job.placed:
            job.placed = False
            self._placed -= 1
            self._places.give_back(job.target.host)
