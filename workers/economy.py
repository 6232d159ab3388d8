"""Asks the calls of economy jobs in the tier `economy` while there is time, and has them asked in `standard` when there is not.

A slow step asks in the tier `economy` alone, in a thread of its own kind. When its last moment has come (pipeline/economy.py), it
becomes a usual step, which asks in `standard` in the threads of usual steps. It stays usual until its chunk has every answer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from math import ceil
from tempfile import SpooledTemporaryFile
from typing import IO

import structlog

from pipeline.economy import FLEX_SECONDS, Pace, next_ask, pace_of
from pipeline.errors import PartError, os_errors
from pipeline.metrics import ECONOMY_CALLS, ECONOMY_HURRIED
from pipeline.models import Model
from pipeline.ports import Cause, Engine, EngineLimits, ModelUnavailable
from pipeline.types import Answer, Call, Question, Tier
from storage.job import economy
from storage.queue import ringing, steps
from storage.queue.steps import Lease
from workers.wiring import WorkerParts, threads_of

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0  #: between two looks for steps whose last moment has come
AGAIN_SECONDS = (1.0, 20.0)  #: range of the random delay until a call that got no answer for FLEX_SECONDS is made again
CROWDED_SECONDS = (10.0, 30.0)  #: the same for one that waits for a place or for money, both of which slow calls hold for minutes


class LastMoment(Exception):
    """The calls of the step must be asked in the tier `standard` from now on, so that they are answered before the deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EconomyEngine:
    """Wraps the engine for a slow step: its calls are asked in the tier `economy`. Implements pipeline.ports.Engine."""

    parts: WorkerParts
    lease: Lease
    inner: Engine
    pace: Pace  #: of the job's chunks in the tier `standard`

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def model(self) -> str:
        return self.inner.model

    @property
    def limits(self) -> EngineLimits:
        return self.inner.limits

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.inner.warnings

    def ask(self, call: Call) -> Answer:
        """Asks the call's model in the tier `economy`, and no other model. The lease is renewed as long as the call runs.

        Raises what the engine raises, and LastMoment if the call must be asked in `standard`.
        """
        model = self.parts.models.get(call.model or self.model)
        if model is None or not model.has_tier(Tier.ECONOMY, datetime.now(UTC).date()):
            raise LastMoment
        with self.parts.database.read() as connection:
            standing = economy.standing_of(connection, self.lease)
        seen = list(self.parts.slow_seconds)
        wanted = next_ask(left=standing.left, after=standing.after, later=standing.later, pace=self.pace, seen=seen)
        if wanted.tier is Tier.STANDARD:
            raise LastMoment
        began = self.parts.clock()
        asked = replace(call, tier=Tier.ECONOMY, timeout=wanted.timeout, fallback_models=(), waited=False)
        try:
            with self.parts.leases.in_slow_call(self.lease, seconds=wanted.timeout):
                answer = self.inner.ask(asked)
        except ModelUnavailable as error:
            if error.cause is Cause.SHED:
                ECONOMY_CALLS.add(outcome="shed")
            if self.parts.clock() - began >= wanted.timeout:
                raise _late(wanted.timeout) from error
            if error.cause in {Cause.CROWDED, Cause.BUSY}:
                error.retry_after = max(error.retry_after, random.uniform(*CROWDED_SECONDS))  # noqa: S311 - jitter
            raise
        self.parts.slow_seconds.append(self.parts.clock() - began)
        ECONOMY_CALLS.add(outcome="economy" if answer.tier is Tier.ECONOMY else "standard")
        return answer

    def most_pictures(self, model: str) -> int:
        return self.inner.most_pictures(model)

    def learn_pictures(self, model: str, most: int) -> None:
        self.inner.learn_pictures(model, most)

    def close(self) -> None:
        """Does nothing, because the engine is closed with the parts."""


def look_before_reading(parts: WorkerParts, name: str) -> None:
    """Raises ModelUnavailable if the model is paused in the tier `economy`. So a step that can't ask does not read its pictures.

    `name`: the model's name; empty: the default model.
    """
    model = parts.models.get(name or parts.engine.model)
    if model is None or parts.limiter is None:
        return
    seconds = parts.limiter.paused(model, Tier.ECONOMY)
    if seconds > 0:
        after = seconds + random.uniform(*AGAIN_SECONDS)  # noqa: S311 - jitter
        raise ModelUnavailable(f"{model.name} is paused in the tier economy", retry_after=after, cause=Cause.SHED)


def on_disk(source: IO[bytes]) -> IO[bytes]:
    """The scratch object of a slow step, which is read for minutes: if it lies in memory, it is moved to disk.

    Raises Transient or Permanent, and closes the object then.
    """
    if isinstance(source, SpooledTemporaryFile):
        try:
            with os_errors():
                source.rollover()
        except BaseException:
            source.close()
            raise
    return source


def _late(timeout: float) -> Exception:
    """What is raised for a call that got no answer within its time."""
    ECONOMY_CALLS.add(outcome="late")
    if timeout < FLEX_SECONDS:
        return LastMoment()
    again = random.uniform(*AGAIN_SECONDS)  # noqa: S311 - jitter
    return ModelUnavailable(f"no answer in the tier economy for {timeout:.0f} s", retry_after=again, cause=Cause.SHED)


def pace_of_chunks(parts: WorkerParts, name: str, question: Question, images: int) -> Pace:
    """How many chunks of so many images the threads of this process can have answered in the tier `standard`."""
    model = parts.models.get(name) or Model(name=name)
    characters = len(question.prompt) + (len(json.dumps(question.schema)) if question.schema is not None else 0)
    most = min(model.pictures, parts.engine.most_pictures(name), question.images_per_call or model.pictures)
    tokens = model.input_tokens(characters=characters, pictures=min(images, most), detail=question.detail)
    every, _ = threads_of(parts.settings.worker_concurrency)
    pace = pace_of(model, tokens=tokens, concurrency=min(every, parts.settings.model_concurrency))
    return replace(pace, calls_per_second=pace.calls_per_second / ceil(images / most))


def hurry_overdue(parts: WorkerParts) -> None:
    """Has the waiting slow steps whose last moment has come asked in the tier `standard`, in the threads of usual steps."""
    with parts.database.read() as connection:
        ids = economy.overdue_steps(connection, partial(pace_of_chunks, parts))
    if not ids:
        return
    with parts.database.write() as connection:
        hurried = steps.hurry_waiting(connection, ids)
        rings = ringing.to_ring(connection)
    parts.signals.ring(rings)
    ECONOMY_HURRIED.add(hurried)
    log.info("steps_hurried", steps=hurried)


def hurry_step(parts: WorkerParts, lease: Lease) -> None:
    """The same for a step that this process holds. Raises LostLease."""
    with parts.database.write() as connection:
        steps.hurry(connection, lease)
        rings = ringing.to_ring(connection, beside=lease.job)
    parts.signals.ring(rings)
    ECONOMY_HURRIED.add()


def watch_deadlines(parts: WorkerParts, *, wait: Callable[[float], bool] | None = None) -> None:
    """Looks for such steps until the process stops. Tests replace `wait`, which returns whether the process stops."""
    wait = wait or parts.stopping.wait
    while not wait(LOOK_SECONDS):
        try:
            hurry_overdue(parts)
        except PartError as error:
            log.warning("steps_not_hurried", reason=str(error)[:300])
        except Exception:  # the thread must survive any error
            log.exception("steps_not_hurried")
