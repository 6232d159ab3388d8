"""The rate limiter of the models: its rules, and an implementation for one process. Pure.

Each model has a schedule of requests and one of tokens, by the generic cell rate algorithm (GCRA). `next_request` is when the
next request is due if all requests come evenly. A request may start up to BURST_MS before it is due. If it is due soon, its
permit says how long to wait. In any 60 s no more requests start than the limit allows.

Each tier of a model has a lane: a limit of concurrent calls, pauses and a circuit breaker of its own. The calls of the tier `economy`
take minutes, and so they take no place from standard calls. Both lanes use the same schedules, because a vendor counts their requests
together. An economy request starts only when it is due and no caller waits, so it delays no standard request by more than one.

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
from pipeline.ports import Cause, ModelUnavailable, Permit, Stop
from pipeline.types import Tier

MINUTE_MS = 60_000
BURST_MS = 1_000  #: burst tolerance: how long before it is due a request may start
SLACK_MS = 500  #: added to the minute of a limit, because requests take different times to reach the model
AHEAD_MS = 1_000  #: a request that is due within this time gets a permit with a delay, and waits in its thread
AHEAD_WAITED_MS = 2_000  #: the same for a request whose caller waits; it is longer, so that these requests go first
CLAIM_MS = 2_500  #: how long a slot is reserved for a refused request whose caller waits; it retries within this time
CROWDED_MS = 500  #: until a request that found no free slot retries, unless a call of its own process ends before
SPREAD_MS = 30_000  #: the retries of refused requests are spread over this time
NARROWEST_MS = 50  #: the least time between two of these retries
SHEDS = 5  #: an economy lane is paused after this many calls in a row were shed
SHED_DOUBLINGS = 3  #: how often that pause doubles while further calls are shed
GRACE_MS = 5_000  #: how long after its time-out an unfinished call still counts; then its worker must be gone

Clock = Callable[[], float]  #: milliseconds, never going back

#: Which circuit breaker a cause opens: the one of the whole engine, or the one of the model.
OPENS_ENGINE = frozenset({Cause.ACCOUNT, Cause.ADDRESS, Cause.AWAY})
OPENS_MODEL = frozenset({Cause.QUOTA, Cause.MODEL})


#: Why a lane is paused.
PAUSES = {Tier.STANDARD: Cause.RATE, Tier.ECONOMY: Cause.SHED}


def places_of(models: Iterable[Model]) -> list[tuple[str, Tier]]:
    """Where calls may be stopped: the engine, whose name is "", and each lane of each model."""
    return [("", Tier.STANDARD), *((model.name, tier) for model in models for tier in Tier)]


def lane_of(model: str, tier: Tier) -> str:
    """The name of a lane. The lane of the tier `standard` has the model's name. No model's name has a space."""
    return model if tier is Tier.STANDARD else f"{tier.value} {model}"


def ahead_of(tier: Tier, *, waited: bool) -> int:
    """How many milliseconds before it starts a request gets its permit."""
    return 0 if tier is Tier.ECONOMY else AHEAD_WAITED_MS if waited else AHEAD_MS


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
    """The state of a lane. The lane of the tier `standard` also has the model's schedules and claims. Times are in milliseconds, by the limiter's clock."""

    most: float  #: concurrent calls that are allowed now: a 429 halves it, and answers raise it again
    next_request: float = 0.0  #: when the next request is due
    next_token: float = 0.0  #: when the next token is due
    hint: float = 0.0  #: when the request that was refused last retries
    paused_until: float = 0.0
    sheds: int = 0  #: calls in a row that were shed
    claimed_until: float = 0.0  #: until then a slot is reserved for a refused request whose caller waits
    calls: dict[str, float] = field(default_factory=dict)  #: by permit: when the call stops counting
    breaker: _Breaker | None = None


class LocalLimiter:
    """Limits the calls of this process alone, to a `share` of the limits. Thread-safe."""

    def __init__(self, *, concurrency: int, economy: int | None = None, clock: Clock = lambda: time.monotonic() * 1000) -> None:
        """`concurrency`, `economy`: most concurrent calls of a model in each tier. If `economy` is None, both tiers have the same."""
        self.share = 1.0  #: the fraction of all limits that this process uses; other processes may use the rest
        self._concurrency = {Tier.STANDARD: concurrency, Tier.ECONOMY: economy or concurrency}
        self._clock = clock
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}

    def enter(self, model: Model, *, tokens: int, waited: bool, seconds: float, tier: Tier = Tier.STANDARD) -> Permit:
        waited = waited and tier is Tier.STANDARD
        with self._lock:
            now, state, lane = self._clock(), self._state(model.name), self._lane(model.name, tier)
            states = (self._state(""), state) if lane is state else (self._state(""), state, lane)
            breakers = [held.breaker for held in states if held.breaker]
            for breaker in breakers:
                if now < breaker.probe_at:
                    raise away(model.name, breaker.probe_at - now, breaker.cause, breaker.notice)
            request_ms, token_ms = spacings(model, tokens, self.share)
            start = max(
                now,
                state.paused_until,
                lane.paused_until,
                state.next_request - BURST_MS if request_ms else 0,
                state.next_token - BURST_MS if token_ms else 0,
                now + AHEAD_MS + 1 if not waited and now < state.claimed_until else 0,
            )
            if start > now + ahead_of(tier, waited=waited):
                cause = Cause.RATE if state.paused_until > now else Cause.BUSY
                if lane is not state and lane.paused_until > now:
                    cause = Cause.SHED
                back = _back(lane, start, None if waited else max(request_ms, token_ms * tokens))
                raise away(model.name, back - now, cause)
            if self._is_crowded(lane, now, self._concurrency[tier]):
                if waited:
                    state.claimed_until = max(state.claimed_until, now + CLAIM_MS)
                raise away(model.name, CROWDED_MS, Cause.CROWDED)
            state.next_request = max(state.next_request, start) + request_ms
            state.next_token = max(state.next_token, start) + token_ms * tokens
            for breaker in breakers:
                breaker.probe_at = now + breaker.probe_after
            permit = str(next(self._ids))
            lane.calls[permit] = start + seconds * 1000 + GRACE_MS
            return Permit(id=permit, model=model, tier=tier, tokens=tokens, delay=(start - now) / 1000)

    def leave(self, permit: Permit, *, tokens: int | None, trouble: ModelUnavailable | None) -> None:
        with self._lock:
            now, state = self._clock(), self._state(permit.model.name)
            lane = self._lane(permit.model.name, permit.tier)
            lane.calls.pop(permit.id, None)
            _, token_ms = spacings(permit.model, permit.tokens, self.share)
            if tokens is not None:
                state.next_token += token_ms * (tokens - permit.tokens)
            if trouble is None:
                lane.most = min(lane.most + 1 / lane.most, float(self._concurrency[permit.tier]))
                lane.breaker = state.breaker = self._state("").breaker = None
                if lane.sheds:  # there is capacity again
                    lane.sheds, lane.paused_until = 0, now
                return
            after = trouble.retry_after * 1000
            if trouble.cause is Cause.RATE:
                if now >= lane.paused_until:  # several calls of one burst may get a 429, but the limit is halved only once
                    lane.most = max(lane.most / 2, 1.0)
                lane.paused_until = max(lane.paused_until, now + after)
            elif trouble.cause is Cause.SHED:
                lane.sheds += 1
                if lane.sheds >= SHEDS:
                    pause = after * 2 ** min(lane.sheds - SHEDS, SHED_DOUBLINGS)
                    lane.paused_until = max(lane.paused_until, now + pause)
            elif trouble.cause in OPENS_ENGINE | OPENS_MODEL:
                held = self._state("") if trouble.cause in OPENS_ENGINE else lane
                held.breaker = _Breaker(trouble.notice, trouble.cause, now + after, after)

    def paused(self, model: Model, tier: Tier) -> float:
        with self._lock:
            until = max(self._state(model.name).paused_until, self._lane(model.name, tier).paused_until)
            return max(until - self._clock(), 0.0) / 1000

    def notices(self, models: Iterable[Model]) -> dict[str, str]:
        with self._lock:
            names = ["", *(model.name for model in models)]
            return {name: held.notice for name in names if (held := self._state(name).breaker)}

    def stops(self, models: Iterable[Model]) -> list[Stop]:
        with self._lock:
            now, found = self._clock(), []
            for name, tier in places_of(models):
                lane = self._lane(name, tier)
                cause = lane.breaker.cause if lane.breaker else PAUSES[tier] if lane.paused_until > now else None
                if cause:
                    found.append(Stop(model=name, tier=tier, cause=cause))
            return found

    def _state(self, name: str) -> _State:
        return self._lane(name, Tier.STANDARD)

    def _lane(self, name: str, tier: Tier) -> _State:
        return self._states.setdefault(lane_of(name, tier), _State(most=float(self._concurrency[tier])))

    def _is_crowded(self, lane: _State, now: float, concurrency: int) -> bool:
        lane.calls = {name: until for name, until in lane.calls.items() if until > now}
        return len(lane.calls) >= max(int(min(lane.most, concurrency * self.share)), 1)


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
