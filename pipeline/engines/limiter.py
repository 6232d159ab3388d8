"""The rate limiter of the models: its rules, and an implementation for one process. Pure.

Each model has a schedule of requests and one of tokens, by the generic cell rate algorithm (GCRA). `next_request` is when the
next request is due if all requests come evenly. A request may start up to BURST_MS before it is due. If it is due soon, its
permit says how long to wait. In any 60 s no more requests start than the limit allows.

storage/redis/model_limits.py has the same rules in Lua, for all workers together. tests/contract/test_limiter.py runs the same
tests on both.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipeline.models import Model
from pipeline.ports import Cause, ModelUnavailable, Permit

MINUTE_MS = 60_000
BURST_MS = 1_000  #: burst tolerance: how long before it is due a request may start
SLACK_MS = 500  #: added to the minute of a limit, because requests take different times to reach the model
AHEAD_MS = 1_000  #: a request that is due within this time gets a permit with a delay, and waits in its thread
AHEAD_WAITED_MS = 2_000  #: the same for a request whose caller waits; it is longer, so that these requests go first
CLAIM_MS = 2_500  #: how long a slot is reserved for a refused request whose caller waits; it retries within this time
CROWDED_MS = 500  #: until a request that found no free slot retries, unless a call of its own process ends before
SPREAD_MS = 30_000  #: the retries of refused requests are spread over this time
NARROWEST_MS = 50  #: the least time between two of these retries
GRACE_MS = 5_000  #: how long after its time-out an unfinished call still counts; then its worker must be gone

Clock = Callable[[], float]  #: milliseconds, never going back

#: Which circuit breaker a cause opens: the one of the whole engine, or the one of the model.
OPENS_ENGINE = frozenset({Cause.ACCOUNT, Cause.ADDRESS, Cause.AWAY})
OPENS_MODEL = frozenset({Cause.QUOTA, Cause.MODEL})


def spacings(model: Model, tokens: int, share: float = 1.0) -> tuple[float, float]:
    """How many milliseconds one request, and one token, move the schedules forward. 0: the model has no such limit.

    `share`: the fraction of the model's limits that may be used. The request's `tokens` are subtracted from the limit first,
    because the last call of a minute must fit into the limit with all its tokens.
    """
    minute = MINUTE_MS + BURST_MS + SLACK_MS
    rpm, tpm = (model.rpm or 0) * share, (model.tpm or 0) * share
    return (minute / rpm if rpm else 0.0), (minute / max(tpm - tokens, tpm / 2) if tpm else 0.0)


def away(model: str, milliseconds: float, cause: Cause, notice: str = "") -> ModelUnavailable:
    """The exception that `enter` raises if it gives no permit."""
    text = f"{model} is not asked for {milliseconds / 1000:.1f} s ({cause})"
    return ModelUnavailable(text, retry_after=max(milliseconds, 1) / 1000, notice=notice, cause=cause)


@dataclass(slots=True)
class _Breaker:
    """A circuit breaker: it blocks all requests, except a probe from time to time. Times are in milliseconds."""

    notice: str
    cause: Cause
    probe_at: float
    probe_after: float


@dataclass(slots=True)
class _State:
    """The state of a model. Times are in milliseconds, by the limiter's clock."""

    most: float  #: concurrent calls that are allowed now: a 429 halves it, and answers raise it again
    next_request: float = 0.0  #: when the next request is due
    next_token: float = 0.0  #: when the next token is due
    hint: float = 0.0  #: when the request that was refused last retries
    paused_until: float = 0.0
    claimed_until: float = 0.0  #: until then a slot is reserved for a refused request whose caller waits
    calls: dict[str, float] = field(default_factory=dict)  #: by permit: when the call stops counting
    breaker: _Breaker | None = None


class LocalLimiter:
    """Limits the calls of this process alone, to a `share` of the limits. Thread-safe."""

    def __init__(self, *, concurrency: int, clock: Clock = lambda: time.monotonic() * 1000) -> None:
        self.share = 1.0  #: the fraction of all limits that this process uses; other processes may use the rest
        self._concurrency = concurrency
        self._clock = clock
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}

    def enter(self, model: Model, *, tokens: int, waited: bool, seconds: float) -> Permit:
        with self._lock:
            now, state = self._clock(), self._state(model.name)
            breakers = [held.breaker for held in (self._state(""), state) if held.breaker]
            for breaker in breakers:
                if now < breaker.probe_at:
                    raise away(model.name, breaker.probe_at - now, breaker.cause, breaker.notice)
            request_ms, token_ms = spacings(model, tokens, self.share)
            start = max(
                now,
                state.paused_until,
                state.next_request - BURST_MS if request_ms else 0,
                state.next_token - BURST_MS if token_ms else 0,
                now + AHEAD_MS + 1 if not waited and now < state.claimed_until else 0,
            )
            if start > now + (AHEAD_WAITED_MS if waited else AHEAD_MS):
                cause = Cause.RATE if state.paused_until > now else Cause.BUSY
                back = _back(state, start, None if waited else max(request_ms, token_ms * tokens))
                raise away(model.name, back - now, cause)
            if self._is_crowded(state, now):
                if waited:
                    state.claimed_until = max(state.claimed_until, now + CLAIM_MS)
                raise away(model.name, CROWDED_MS, Cause.CROWDED)
            state.next_request = max(state.next_request, start) + request_ms
            state.next_token = max(state.next_token, start) + token_ms * tokens
            for breaker in breakers:
                breaker.probe_at = now + breaker.probe_after
            permit = str(next(self._ids))
            state.calls[permit] = start + seconds * 1000 + GRACE_MS
            return Permit(id=permit, model=model, tokens=tokens, delay=(start - now) / 1000)

    def leave(self, permit: Permit, *, tokens: int | None, trouble: ModelUnavailable | None) -> None:
        with self._lock:
            now, state = self._clock(), self._state(permit.model.name)
            state.calls.pop(permit.id, None)
            _, token_ms = spacings(permit.model, permit.tokens, self.share)
            if tokens is not None:
                state.next_token += token_ms * (tokens - permit.tokens)
            if trouble is None:
                state.most = min(state.most + 1 / state.most, float(self._concurrency))
                state.breaker = self._state("").breaker = None
                return
            after = trouble.retry_after * 1000
            if trouble.cause is Cause.RATE:
                if now >= state.paused_until:  # several calls of one burst may get a 429, but the limit is halved only once
                    state.most = max(state.most / 2, 1.0)
                state.paused_until = max(state.paused_until, now + after)
            elif trouble.cause in OPENS_ENGINE | OPENS_MODEL:
                held = self._state("") if trouble.cause in OPENS_ENGINE else state
                held.breaker = _Breaker(trouble.notice, trouble.cause, now + after, after)

    def notices(self, models: Iterable[Model]) -> dict[str, str]:
        with self._lock:
            names = ["", *(model.name for model in models)]
            return {name: held.notice for name in names if (held := self._state(name).breaker)}

    def _state(self, name: str) -> _State:
        return self._states.setdefault(name, _State(most=float(self._concurrency)))

    def _is_crowded(self, state: _State, now: float) -> bool:
        state.calls = {name: until for name, until in state.calls.items() if until > now}
        return len(state.calls) >= max(int(min(state.most, self._concurrency * self.share)), 1)


def _back(state: _State, start: float, spacing: float | None) -> float:
    """When a refused request retries. Retries are spread, because only one of them may start at a time.

    `spacing`: milliseconds between two retries. None for a request whose caller waits, because a slot is reserved for it.
    """
    if spacing is None:
        state.claimed_until = max(state.claimed_until, start + CLAIM_MS)
        return start
    if start <= state.hint <= start + SPREAD_MS:
        state.hint += max(spacing, NARROWEST_MS)
    else:
        state.hint = start
    return state.hint
