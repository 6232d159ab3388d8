"""Puts an engine behind the limits that all workers share. It decides on retries and on fallback models.

The rules are the same for every engine:

- If the model is overloaded or the connection breaks, the call is retried in this thread, a few times with full jitter.
- A 429 pauses the model for all workers.
- A call in the tier `economy` that is shed is not retried in this thread. If several in a row are shed, that tier of the model is
  paused for all workers. Calls in the tier `standard` are not affected.
- A bad key, missing credit or a wrong address stops the calls of the engine until a person has fixed it. A used-up daily quota
  stops the calls of its model. So does a server that is not there, until it answers again.
- Before a server counts as not there, it is asked twice. If somebody holds the request open, a refusal that needs a person is
  confirmed in the same way, because that request then ends.
- A call that would have to wait for longer raises ModelUnavailable, so that its thread is free for other steps.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from pipeline.engines.call_queue import CallQueue, QueuedCall, Wait, until_told
from pipeline.engines.limiter import CROWDED_MS, lane_of
from pipeline.models import Model
from pipeline.ports import Cause, Engine, EngineLimits, Limiter, ModelFault, ModelRefused, ModelUnavailable, Permit
from pipeline.types import Answer, Call, Tier

log = structlog.get_logger(__name__)

TRIES = 4  #: how often one call is tried while the model is overloaded or the connection breaks
PATIENCE_SECONDS = 2.0  #: the longest wait in a thread; then the step is handed back
SPARE_PATIENCE_SECONDS = 5.0  #: the longest wait for a slot while other threads are idle
CROWDED_SECONDS = (1.0, 5.0)  #: range of the random delay until a step that found no slot is tried again
#: A 429 that asks for a longer pause counts as a used-up quota, because a quota per minute asks for a shorter one.
LONG_PAUSE_SECONDS = 90.0
SHED_SPREAD = (1.0, 2.0)  #: the wait after a call that was shed is multiplied with a random number from this range
CONFIRM_SECONDS = 1.0  #: until a call that found the server away, or was refused, is made again to confirm it
INSTRUCTION_CHARACTERS = 1000  #: about the length of what an engine adds to a prompt

_AGAIN = frozenset({Cause.OVERLOADED, Cause.GARBLED})
_WAITED_FOR = frozenset({Cause.BUSY, Cause.CROWDED, Cause.RATE})
_EXHAUSTED = frozenset({Cause.OVERLOADED, Cause.QUOTA, Cause.MODEL})


@dataclass(kw_only=True, slots=True)
class _Doubts:
    """The errors of one call that further requests have to confirm."""

    count: int = 0
    pending: bool = False  #: whether the last request ended with such an error


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
        doubts = _Doubts()
        jitter = wait_random_exponential(multiplier=0.25, max=PATIENCE_SECONDS)

        def is_tried_again(error: BaseException) -> bool:
            return isinstance(error, ModelUnavailable) and (doubts.pending or error.cause in _AGAIN)

        def seconds(state: RetryCallState) -> float:
            return CONFIRM_SECONDS if doubts.pending else jitter(state)

        retrying = Retrying(
            retry=retry_if_exception(is_tried_again),
            stop=stop_after_attempt(TRIES) | stop_after_delay(max(ends - time.monotonic(), 0)),
            wait=seconds,
            sleep=self._pause,
            reraise=True,
        )
        day = self._today()
        if not model.has_tier(call.tier, day):
            call = replace(call, tier=Tier.STANDARD)
        try:
            answer = retrying(self._once, model, call, ends, doubts)
        except ModelUnavailable as trouble:
            if trouble.cause is Cause.GARBLED:
                raise ModelFault(str(trouble)) from trouble
            raise
        price = model.price(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens, day=day, tier=answer.tier)
        return replace(answer, nanodollars=price)

    def _once(self, model: Model, call: Call, ends: float, doubts: _Doubts) -> Answer:
        """Makes one request, and reports its outcome to the limiter.

        The first error that a second request has to confirm is a doubt, and the limiter does not stop other calls for it. So is
        each page of a gateway that answers for the model: if every try gets one, the server is not there.
        """
        doubts.pending = False
        permit = self._enter(model, call, ends)
        tokens: int | None = None
        trouble: ModelUnavailable | None = ModelUnavailable("the request was not made", retry_after=0)
        try:
            self._pause(permit.delay)
            answer = self._inner.ask(replace(call, model=model.name, timeout=max(ends - time.monotonic(), 1.0)))
            tokens, trouble = answer.input_tokens or None, None
        except ModelUnavailable as error:
            trouble = error
            if error.cause is Cause.SHED:
                error.retry_after *= random.uniform(*SHED_SPREAD)  # noqa: S311 - jitter
            if doubts.count == 0 and (error.cause is Cause.AWAY or (call.waited and error.cause.needs_person)):
                doubts.count, doubts.pending = 1, True
                trouble = ModelUnavailable(str(error), retry_after=error.retry_after)
            elif error.cause is Cause.OVERLOADED and error.notice:
                doubts.count += 1
                error.cause = Cause.AWAY if doubts.count >= TRIES else error.cause
            raise
        except (ModelFault, ModelRefused):
            trouble = None  # because the model did answer, so it is available
            raise
        finally:
            self._limiter.leave(permit, tokens=tokens, trouble=trouble)
            self._queue.leave(lane_of(model.name, call.tier))
        return answer

    def _enter(self, model: Model, call: Call, ends: float) -> Permit:
        characters = len(call.prompt) + INSTRUCTION_CHARACTERS + (len(json.dumps(call.schema)) if call.schema else 0)
        tokens = model.input_tokens(characters=characters, pictures=len(call.pictures), detail=call.detail)
        with self._queue.in_line(lane_of(model.name, call.tier), waited=call.waited) as queued:
            spent = queued.wait(CROWDED_MS / 1000) if queued.is_behind else 0.0
            while True:
                try:
                    seconds = max(ends - time.monotonic(), 1.0)
                    permit = self._limiter.enter(model, tokens=tokens, waited=call.waited, seconds=seconds, tier=call.tier)
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
