"""Puts an engine behind the limits that all workers share. It decides on retries and on fallback models.

The rules are the same for every engine:

- If the model is overloaded or the connection breaks, the call is retried in this thread, a few times with full jitter.
- A 429 pauses the model for all workers.
- A bad key or missing credit stops the calls of the engine until a person has fixed it. A used-up daily quota stops the calls
  of its model.
- A call that would have to wait for longer raises ModelUnavailable, so that its thread is free for other steps.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime

import structlog
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from pipeline.engines.call_queue import CallQueue, QueuedCall, Wait, until_told
from pipeline.engines.limiter import CROWDED_MS
from pipeline.models import Model
from pipeline.ports import Cause, Engine, EngineLimits, Limiter, ModelFault, ModelRefused, ModelUnavailable, Permit
from pipeline.types import Answer, Call

log = structlog.get_logger(__name__)

TRIES = 4  #: how often one call is tried while the model is overloaded or the connection breaks
PATIENCE_SECONDS = 2.0  #: the longest wait in a thread; then the step is handed back
SPARE_PATIENCE_SECONDS = 5.0  #: the longest wait for a slot while other threads are idle
CROWDED_SECONDS = (1.0, 5.0)  #: range of the random delay until a step that found no slot is tried again
#: A 429 that asks for a longer pause counts as a used-up quota, because a quota per minute asks for a shorter one.
LONG_PAUSE_SECONDS = 90.0
INSTRUCTION_CHARACTERS = 1000  #: about the length of what an engine adds to a prompt

_AGAIN = frozenset({Cause.OVERLOADED, Cause.GARBLED})
_WAITED_FOR = frozenset({Cause.BUSY, Cause.CROWDED, Cause.RATE})
_EXHAUSTED = frozenset({Cause.OVERLOADED, Cause.QUOTA, Cause.MODEL})


class GovernedEngine:
    """Calls the engine `inner` only when the limiter permits it. Thread-safe if both are."""

    def __init__(
        self,
        inner: Engine,
        *,
        limiter: Limiter,
        models: Mapping[str, Model],
        pause: Callable[[float], None] = time.sleep,
        wait: Wait = until_told,
        spare: Callable[[], bool] = lambda: False,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        """Tests replace `pause`, `wait` and `today`. `spare`: whether other threads are idle, so that a waiting call delays no step."""
        self._inner = inner
        self._limiter = limiter
        self._models = models
        self._pause = pause
        self._queue = CallQueue(wait)
        self._spare = spare
        self._today = today

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def limits(self) -> EngineLimits:
        return self._inner.limits

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._inner.warnings

    def ask(self, call: Call) -> Answer:
        """The answer of `call.model`. If it can't be asked, the answer of the first fallback model that can."""
        ends = time.monotonic() + call.timeout
        names = dict.fromkeys((call.model or self.model, *call.fallback_models))
        models = [self._models[name] for name in names if name in self._models]
        if not models:
            raise ModelRefused(f"{', '.join(names)}: no longer among the models that may be asked.")
        troubles: list[ModelUnavailable] = []
        for model in models:
            try:
                return self._ask(model, call, ends)
            except ModelUnavailable as trouble:
                troubles.append(trouble)
                if not _exhausted(trouble):
                    break
                log.info("model_exhausted", model=model.name, cause=trouble.cause.value)
        soonest = min(troubles, key=lambda trouble: trouble.retry_after)
        soonest.notice = soonest.notice or next((trouble.notice for trouble in troubles if trouble.notice), "")
        raise soonest

    def most_pictures(self, model: str) -> int:
        return self._inner.most_pictures(model)

    def learn_pictures(self, model: str, most: int) -> None:
        self._inner.learn_pictures(model, most)

    def close(self) -> None:
        self._inner.close()

    def _ask(self, model: Model, call: Call, ends: float) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ModelUnavailable) and error.cause in _AGAIN),
            stop=stop_after_attempt(TRIES) | stop_after_delay(max(ends - time.monotonic(), 0)),
            wait=wait_random_exponential(multiplier=0.25, max=PATIENCE_SECONDS),
            sleep=self._pause,
            reraise=True,
        )
        day = self._today()
        try:
            answer = retrying(self._once, model, call, ends)
        except ModelUnavailable as trouble:
            if trouble.cause is Cause.GARBLED:
                raise ModelFault(str(trouble)) from trouble
            raise
        price = model.price(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens, day=day)
        return replace(answer, nanodollars=price)

    def _once(self, model: Model, call: Call, ends: float) -> Answer:
        """Makes one request, and reports its outcome to the limiter."""
        permit = self._enter(model, call, ends)
        tokens: int | None = None
        trouble: ModelUnavailable | None = ModelUnavailable("the request was not made", retry_after=0)
        try:
            self._pause(permit.delay)
            answer = self._inner.ask(replace(call, model=model.name, timeout=max(ends - time.monotonic(), 1.0)))
            tokens, trouble = answer.input_tokens or None, None
        except ModelUnavailable as error:
            trouble = error
            raise
        except (ModelFault, ModelRefused):
            trouble = None  # because the model did answer, so it is available
            raise
        finally:
            self._limiter.leave(permit, tokens=tokens, trouble=trouble)
            self._queue.leave(model.name)
        return answer

    def _enter(self, model: Model, call: Call, ends: float) -> Permit:
        characters = len(call.prompt) + INSTRUCTION_CHARACTERS + (len(json.dumps(call.schema)) if call.schema else 0)
        tokens = model.input_tokens(characters=characters, pictures=len(call.pictures), detail=call.detail)
        with self._queue.in_line(model.name, waited=call.waited) as queued:
            spent = queued.wait(CROWDED_MS / 1000) if queued.is_behind else 0.0
            while True:
                try:
                    seconds = max(ends - time.monotonic(), 1.0)
                    permit = self._limiter.enter(model, tokens=tokens, waited=call.waited, seconds=seconds)
                except ModelUnavailable as away:
                    spent += self._wait(away, queued, spent, ends)
                else:
                    queued.found = True
                    return permit

    def _wait(self, away: ModelUnavailable, queued: QueuedCall, spent: float, ends: float) -> float:
        """Waits until the call may try again. Returns how many seconds it waited.

        `away`: why the limiter refused the call; `spent`: how many seconds the call has waited before. Raises `away` if the
        wait would be too long.
        """
        if away.cause not in _WAITED_FOR:
            raise away
        in_time = spent < SPARE_PATIENCE_SECONDS and time.monotonic() < ends
        patient = away.cause is Cause.CROWDED and in_time and self._spare()
        if spent + away.retry_after > PATIENCE_SECONDS and not patient:
            if spent:  # it waited for a slot, not until a given time
                away.retry_after = max(away.retry_after, random.uniform(*CROWDED_SECONDS))  # noqa: S311 - jitter
            raise away
        if away.cause is Cause.CROWDED:
            return queued.wait(away.retry_after)
        self._pause(away.retry_after)
        return away.retry_after


def _exhausted(trouble: ModelUnavailable) -> bool:
    """Whether a fallback model should be asked instead of waiting for this one."""
    return trouble.cause in _EXHAUSTED or (trouble.cause is Cause.RATE and trouble.retry_after > LONG_PAUSE_SECONDS)
