"""The real steps of economy jobs, with a model server that is simulated and a clock that jumps from event to event.

The database has the clock of the machine. So time passes by moving the deadlines of jobs and the waits of steps towards the present.
A thread that waits for an answer sleeps until the clock gets there. When all threads sleep or are idle, the clock jumps.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from pipeline.engines.governed import GovernedEngine
from pipeline.engines.limiter import LocalLimiter
from pipeline.models import Model, output_tokens
from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import Answer, Call, Finish, ItemCode, Tier
from storage import schema
from storage.database import now_ms
from storage.queue.ringing import Ring
from tests.fakes.engine import FakeEngine, answer_text
from tests.fakes.flex import FlexServer
from tests.fakes.signals import MemorySignals
from tests.harness import Harness, running
from workers.economy import hurry_overdue
from workers.run import run_step
from workers.wiring import WorkerParts, threads_of

__all__ = ["HOUR", "PATTERNS", "Ended", "FlexServer", "Town", "town"]

MODEL = Model(name="fake-1", price_in=0.3, price_out=2.5, flex=0.5)
STANDARD_SECONDS = 20.0  #: of an answer in the tier standard
LOOK_SECONDS = 60.0  #: between two looks for steps whose last moment has come
LEAST_JUMP = 10.0  #: seconds; events that are closer happen together


class Clock:
    """Seconds since the beginning. Threads that sleep are woken when the clock has jumped far enough. Thread-safe."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changed = threading.Condition()
        self.awake = 0  #: threads that neither sleep nor are idle
        self._sleeping: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()

    def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        woken = threading.Event()
        with self.changed:
            heapq.heappush(self._sleeping, (self.now + seconds, next(self._order), woken))
            self.awake -= 1
            self.changed.notify_all()
        woken.wait()

    def next(self) -> float:
        """When the next thread wakes."""
        return self._sleeping[0][0] if self._sleeping else float("inf")

    def jump(self, at: float) -> None:
        with self.changed:
            self.now = at
            while self._sleeping and self._sleeping[0][0] <= at:
                self.awake += 1
                heapq.heappop(self._sleeping)[2].set()


class SimulatedEngine(FakeEngine):
    """Answers economy calls as a FlexServer treats them, and standard calls after STANDARD_SECONDS."""

    def __init__(self, server: FlexServer, clock: Clock) -> None:
        super().__init__()
        self.asked = dict.fromkeys(Tier, 0)
        self.refused: frozenset[bytes] = frozenset()  #: pictures for which a call is refused
        self.given_up = 0  #: economy calls that would have been answered after their time
        self._server = server
        self._clock = clock
        self._today = datetime.now(UTC).date()

    def ask(self, call: Call) -> Answer:
        tier = Tier.STANDARD
        with self._lock:
            self.asked[call.tier] += 1
        if call.tier is Tier.ECONOMY:
            outcome = self._server.treat(at=self._clock.now)
            if outcome.shed:
                raise ModelUnavailable("no capacity", retry_after=10, cause=Cause.SHED)
            self._clock.sleep(min(outcome.seconds, call.timeout))
            if outcome.seconds > call.timeout:
                with self._lock:
                    self.given_up += 1
                raise ModelUnavailable("no answer", retry_after=1, cause=Cause.SHED)
            tier = Tier.STANDARD if outcome.served_as_standard else Tier.ECONOMY
        else:
            self._clock.sleep(STANDARD_SECONDS)
        pictures = len(call.pictures)
        given = MODEL.input_tokens(characters=len(call.prompt) + 400, pictures=pictures, detail=call.detail)
        if not self.refused.isdisjoint(picture.data for picture in call.pictures):
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY", input_tokens=given, tier=tier)
        return Answer(
            finish=Finish.COMPLETE,
            text=answer_text(call),
            input_tokens=given,
            output_tokens=output_tokens(pictures),
            model_version="fake-1.0",
            tier=tier,
        )


class TwoQueues(MemorySignals):
    """Keeps slow steps apart from the others, as the queues in Redis do."""

    def __init__(self) -> None:
        super().__init__()
        self.usual: deque[int] = deque()
        self.slow: deque[int] = deque()

    def ring(self, rings: Iterable[Ring]) -> None:
        for ring in rings:
            (self.slow if ring.slow else self.usual).append(ring.step)

    def queue_is_empty(self, *, slow: bool = False) -> bool:
        return not (self.slow if slow else self.usual)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What is seen of a job that has ended."""

    status: str
    money: float  #: dollars
    economy: int  #: items that were served in the tier economy
    wrong: int  #: items whose record is not that of their image
    codes: tuple[str, ...]  #: of the failed items, without repetitions
    partition: tuple[str, ...]  #: of each item: "right", "wrong", or the code with which it failed
    left: float  #: seconds until its deadline


class Town:
    """A service whose model and clock are simulated. Its steps, its limiter and its database are real."""

    def __init__(self, house: Harness, server: FlexServer, *, slow: int) -> None:
        self.house = house
        self.clock = Clock()
        self.engine = SimulatedEngine(server, self.clock)
        self.signals = TwoQueues()
        house.models["fake-1"] = MODEL
        house.signals.ring = self.signals.ring  # type: ignore[method-assign] # what the front door announces
        house.supervisor.signals = self.signals
        limiter = LocalLimiter(concurrency=house.settings.model_concurrency, economy=slow, clock=lambda: self.clock.now * 1000)

        def wait(_told: threading.Event, seconds: float) -> float:
            self.clock.sleep(seconds)
            return seconds

        engine = GovernedEngine(self.engine, limiter=limiter, models=house.models, pause=self.clock.sleep, wait=wait)
        parts: Any = {"engine": engine, "signals": self.signals, "limiter": limiter, "clock": lambda: self.clock.now}
        self.work: WorkerParts = replace(house.work, **parts)
        every, _ = threads_of(house.settings.worker_concurrency)
        self._free = {False: every, True: slow}
        self._looks_at = 0.0

    def post(self, images: int | list[str], **fields: Any) -> str:
        """Sends a job with a record for each image. `images`: their number, or their URLs. Returns its id."""
        urls = self.house.urls(images) if isinstance(images, int) else images
        asked = {"inputMethod": "url", "images": urls, "prompt": "p", "granularity": "perImage"}
        answer = self.house.ask("POST", "/api/v1/jobs", json={**asked, **fields})
        assert answer.status_code == 202, answer.json
        return str(answer.json["id"])

    def run(self, jobs: Iterable[str]) -> None:
        """Lets time pass until the jobs have ended."""
        left = set(jobs)

        def have_ended() -> bool:
            left.difference_update([job for job in left if self._has_ended(job)])
            return not left

        self.run_until(have_ended)

    def run_until(self, happened: Callable[[], bool]) -> None:
        """Lets time pass until something has happened."""
        while not happened():
            self.house.supervisor.ring()
            if not self._dispatch():
                self._jump()
            with self.clock.changed:
                self.clock.changed.wait_for(lambda: self.clock.awake == 0)

    def ended(self, job: str) -> Ended:
        shown = self.house.get(f"/api/v1/jobs/{job}").json
        items = list(self._items(job))
        partition = tuple(item["code"] or ("right" if item["result"] == f"img{item['index']}" else "wrong") for item in items)
        with self.house.database.read() as connection:
            columns = schema.jobs_table.c
            left = connection.scalar(select(columns.deadline_at - columns.finished_at).where(columns.id == job)) or 0
        return Ended(
            status=shown["status"],
            money=shown["usage"]["money"],
            economy=sum(item["tier"] == Tier.ECONOMY for item in items),
            wrong=partition.count("wrong"),
            codes=tuple(sorted({item["code"] for item in items if item["code"]})),
            partition=partition,
            left=left / 1000,
        )

    def _items(self, job: str) -> Iterator[dict[str, Any]]:
        cursor = ""
        while cursor is not None:
            page = self.house.get(f"/api/v1/jobs/{job}/items?limit=1000{f'&cursor={cursor}' if cursor else ''}").json
            yield from page["items"]
            cursor = page["nextCursor"]

    def _has_ended(self, job: str) -> bool:
        with self.house.database.read() as connection:
            return connection.scalar(select(schema.jobs_table.c.finished_at).where(schema.jobs_table.c.id == job)) is not None

    def _dispatch(self) -> int:
        """Starts the steps that are announced, as far as threads are free. Returns how many."""
        started = 0
        for slow, rung in ((False, self.signals.usual), (True, self.signals.slow)):
            while rung and self._free[slow]:
                self._free[slow] -= 1
                with self.clock.changed:
                    self.clock.awake += 1
                threading.Thread(target=self._work, args=(rung.popleft(), slow), daemon=True).start()
                started += 1
        return started

    def _work(self, step: int, slow: bool) -> None:  # noqa: FBT001 - the key of `_free`
        try:
            run_step(self.work, step)
        finally:
            with self.clock.changed:
                self._free[slow] += 1
                self.clock.awake -= 1
                self.clock.changed.notify_all()

    def _jump(self) -> None:
        """Lets time pass until a thread wakes, a step is due, or it is time to look for last moments."""
        steps, jobs = schema.steps_table.c, schema.jobs_table.c
        with self.house.database.write() as connection:
            ready = steps.state == "ready"
            due = connection.scalar(select(func.min(steps.not_before) - now_ms()).where(ready, steps.not_before > now_ms()))
            next_due = self.clock.now + due / 1000 if due is not None else float("inf")
            at = max(min(self.clock.next(), next_due, self._looks_at), self.clock.now + LEAST_JUMP)
            passed = int((at - self.clock.now) * 1000)
            connection.execute(
                update(schema.steps_table).where(ready, steps.not_before > 0).values(not_before=steps.not_before - passed)
            )
            connection.execute(
                update(schema.jobs_table).where(jobs.finished_at.is_(None)).values(deadline_at=jobs.deadline_at - passed)
            )
        self.clock.jump(at)
        if at >= self._looks_at:
            self._looks_at = at + LOOK_SECONDS
            hurry_overdue(self.work)
            self.house.supervisor.end_overdue()
            self.house.supervisor.reclaim()  # of steps that could not be handed back, because the database was busy


@contextmanager
def town(folder: Path, server: FlexServer, *, slow: int = 64, **settings: str) -> Iterator[Town]:
    """`slow`: threads for slow calls."""
    with running(folder, workers_count=0, **settings) as house:
        yield Town(house, server, slow=slow)


Capacity = Callable[[float], bool]
HOUR = 3600.0
#: How capacity may come and go: name → whether there is some at a time, and the fraction of calls that is shed although there is.
PATTERNS: dict[str, tuple[Capacity, float]] = {
    "ten minutes of every hour": (lambda at: at % HOUR < 600, 0.0),
    "a gap in the middle, and most calls shed": (lambda at: not HOUR < at < 2.5 * HOUR, 0.7),
    "only in the last hour and a half": (lambda at: at > 2.5 * HOUR, 0.3),
}
