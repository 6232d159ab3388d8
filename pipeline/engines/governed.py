"""An engine behind the limits that all workers share: when it is asked, how often again, and which model next.

The table of gemini-contract.md, for every engine alike: an overloaded model and a broken connection are tried again in this
thread, a few times and with full jitter; a 429 holds the model for the whole fleet; a bad key, missing credit and a day's
quota stop the calls until somebody has mended them. Who would wait longer than a moment is raised out of the thread.
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

TRIES = 4  #: of one call, while the model is overloaded or the connection breaks
PATIENCE_SECONDS = 2.0  #: whoever would wait longer frees its thread instead
SPARE_PATIENCE_SECONDS = 5.0  #: for a place, where other threads have nothing to do anyway
CROWDED_SECONDS = (1.0, 5.0)  #: before a step looks again that found no place in that time
LONG_PAUSE_SECONDS = 90.0  #: of a 429: a minute's quota asks for less, so who asks for more is as good as used up
INSTRUCTION_CHARACTERS = 1000  #: what engines put around a prompt

_AGAIN = frozenset({Cause.OVERLOADED, Cause.GARBLED})
_WAITED_FOR = frozenset({Cause.BUSY, Cause.CROWDED, Cause.RATE})
_EXHAUSTED = frozenset({Cause.OVERLOADED, Cause.QUOTA, Cause.MODEL})


class GovernedEngine:
    """The engine `inner`, asked only as the limiter permits. Thread-safe if both are."""

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
        """`pause`, `wait` and `today` are a test's to replace. `spare`: whether threads are idle, so that who waits holds up nobody."""
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
        """The answer of `call.model`, or of the first of its fallbacks that can be asked where it can't be."""
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
        """One request, and what came of it told to the limiter."""
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
            trouble = None  # it can be asked, and has answered
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
        """Waits, after `spent` seconds, for what has sent it away; for how long. Raises that, if it would be too long."""
        if away.cause not in _WAITED_FOR:
            raise away
        in_time = spent < SPARE_PATIENCE_SECONDS and time.monotonic() < ends
        patient = away.cause is Cause.CROWDED and in_time and self._spare()
        if spent + away.retry_after > PATIENCE_SECONDS and not patient:
            if spent:  # for a place, not for a time
                away.retry_after = max(away.retry_after, random.uniform(*CROWDED_SECONDS))  # noqa: S311 - jitter
            raise away
        if away.cause is Cause.CROWDED:
            return queued.wait(away.retry_after)
        self._pause(away.retry_after)
        return away.retry_after


def _exhausted(trouble: ModelUnavailable) -> bool:
    """Whether another model is to be asked instead of waiting for this one."""
    return trouble.cause in _EXHAUSTED or (trouble.cause is Cause.RATE and trouble.retry_after > LONG_PAUSE_SECONDS)
