"""Who may ask a model when: the rules, and an implementation for one process. Pure.

Each model has a schedule of requests and one of tokens (the generic cell rate algorithm): `next` is when the next one would
be due if all came evenly. What comes at most BURST_MS too early may go, and what will be due within a moment is given that
moment. In any 60 s no more start than the limit allows.

storage/redis/model_limits.py has the same rules in Lua, for all workers together. tests/contract/test_limiter.py holds them alike.
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
BURST_MS = 1_000  #: how much of the schedule may be caught up with at once
SLACK_MS = 500  #: requests are on their way for different times: the minute that the model counts is longer by this
AHEAD_MS = 1_000  #: who is due so soon is told when, and waits in its thread
AHEAD_WAITED_MS = 2_000  #: the same for steps whose caller waits: they find a place before others do
CLAIM_MS = 2_500  #: a step whose caller waits comes back this late at most; its place is kept so long
CROWDED_MS = 500  #: before who found MODEL_CONCURRENCY calls looks again, where no call of its own process ends
SPREAD_MS = 30_000  #: those who are sent away come back one after the other over this time
NARROWEST_MS = 50  #: between two of them
GRACE_MS = 5_000  #: after its time a call whose end was not told counts no more: its worker is gone

Clock = Callable[[], float]  #: milliseconds, never going back

#: the breaker that each cause opens: of the whole engine, or of the model
OPENS_ENGINE = frozenset({Cause.ACCOUNT})
OPENS_MODEL = frozenset({Cause.QUOTA, Cause.MODEL})


def spacings(model: Model, tokens: int, share: float = 1.0) -> tuple[float, float]:
    """Milliseconds that a request, and that one token of it, take of the schedule of `share` of the limits; 0: no limit.

    A minute's last call must fit in with all its tokens, so they are taken off the limit first.
    """
    minute = MINUTE_MS + BURST_MS + SLACK_MS
    rpm, tpm = (model.rpm or 0) * share, (model.tpm or 0) * share
    return (minute / rpm if rpm else 0.0), (minute / max(tpm - tokens, tpm / 2) if tpm else 0.0)


def away(model: str, milliseconds: float, cause: Cause, notice: str = "") -> ModelUnavailable:
    """What `enter` raises where it can't give a permit."""
    text = f"{model} is not asked for {milliseconds / 1000:.1f} s ({cause})"
    return ModelUnavailable(text, retry_after=max(milliseconds, 1) / 1000, notice=notice, cause=cause)


@dataclass(slots=True)
class _Breaker:
    """Keeps all from asking, but for one now and then who looks whether it is mended."""

    notice: str
    cause: Cause
    probe_at: float
    probe_after: float


@dataclass(slots=True)
class _State:
    """What is known of a model."""

    most: float  #: calls at once, as it adapts
    next_request: float = 0.0
    next_token: float = 0.0
    hint: float = 0.0  #: when the one who was sent away last comes back
    paused_until: float = 0.0
    claimed_until: float = 0.0  #: one whose caller waits was sent away, and is to find a place until then
    calls: dict[str, float] = field(default_factory=dict)  #: permit → when it counts no more
    breaker: _Breaker | None = None


class LocalLimiter:
    """The limits for this process alone: `share` of them. Thread-safe."""

    def __init__(self, *, concurrency: int, clock: Clock = lambda: time.monotonic() * 1000) -> None:
        self.share = 1.0  #: of all limits; others may have the rest
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
                if now >= state.paused_until:  # the others of a burst say it too: it is cut once
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
    """When one who is sent away comes back: not all at the moment at which one of them may go.

    `spacing`: milliseconds between two of them; None for one whose caller waits, whose place is kept.
    """
    if spacing is None:
        state.claimed_until = max(state.claimed_until, start + CLAIM_MS)
        return start
    if start <= state.hint <= start + SPREAD_MS:
        state.hint += max(spacing, NARROWEST_MS)
    else:
        state.hint = start
    return state.hint
