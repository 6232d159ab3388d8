"""The limits of the models, shared by all workers. One Lua script applies them, with the clock of Redis.

The script has the same rules as pipeline/engines/limiter.py, and tests/contract/test_limiter.py tests that both behave alike.
While Redis is unavailable, each worker applies those rules to its own share of the limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import redis
import structlog

from pipeline.engines.limiter import (
    AHEAD_MS,
    BURST_MS,
    CLAIM_MS,
    CROWDED_MS,
    GRACE_MS,
    NARROWEST_MS,
    OPENS_ENGINE,
    OPENS_MODEL,
    PAUSES,
    SHED_DOUBLINGS,
    SHEDS,
    SPREAD_MS,
    LocalLimiter,
    ahead_of,
    away,
    lane_of,
    places_of,
    spacings,
)
from pipeline.models import Model
from pipeline.ports import Cause, ModelUnavailable, Permit, Stop
from pipeline.types import Tier
from storage.account.accounts import random_id
from storage.redis.errors import AWAY, redis_errors
from storage.redis.signals import connect

log = structlog.get_logger(__name__)

PREFIX = "extract-image:model"
WORKERS = "extract-image:model-workers"
HERE = "here-"  #: prefix of the ids of permits that were given while Redis was unavailable
WORKER_MS = 60_000  #: a worker that made no request for this long gets no share
ANSWER_SECONDS = 3.0  #: timeout for an answer of Redis
AWAY_SECONDS = 2.0  #: pause before an unavailable Redis is tried again
KEPT_SECONDS = 86_400  #: unused keys expire after this time

SCRIPT = f"""
local engine, model, calls, workers, lane = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local op, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
end
local function get(key, name) return tonumber(redis.call('HGET', key, name) or '0') or 0 end
local function set(key, name, value)
  redis.call('HSET', key, name, string.format('%.3f', value))
  redis.call('EXPIRE', key, {KEPT_SECONDS})
end
local function text(value) return string.format('%.3f', value) end

if op == 'paused' then
  return {{'ok', text(math.max(get(model, 'paused_until'), get(lane, 'paused_until'), now) - now)}}
end

if op == 'enter' then
  local id, owner, waited = ARGV[3], ARGV[4], ARGV[5] == '1'
  local lasts, request_ms, token_ms = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  local tokens, most, ahead = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
  redis.call('ZADD', workers, now, owner)
  redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - {WORKER_MS})
  redis.call('EXPIRE', workers, {KEPT_SECONDS})
  local share = tostring(redis.call('ZCARD', workers))
  local function sent_away(wait, cause, notice) return {{'away', text(wait), cause, notice or '', share}} end

  for _, key in ipairs({{engine, model, lane}}) do
    local probe_at = get(key, 'probe_at')
    if now < probe_at then
      return sent_away(probe_at - now, redis.call('HGET', key, 'cause'), redis.call('HGET', key, 'notice'))
    end
  end

  local paused, claimed = get(model, 'paused_until'), get(model, 'claimed_until')
  local lane_paused = get(lane, 'paused_until')
  local start = math.max(now, paused, lane_paused)
  if request_ms > 0 then start = math.max(start, get(model, 'next_request') - {BURST_MS}) end
  if token_ms > 0 then start = math.max(start, get(model, 'next_token') - {BURST_MS}) end
  if not waited and now < claimed then start = math.max(start, now + {AHEAD_MS} + 1) end
  if start > now + ahead then
    local cause = paused > now and '{Cause.RATE}' or '{Cause.BUSY}'
    if lane ~= model and lane_paused > now then cause = '{Cause.SHED}' end
    if waited then
      set(model, 'claimed_until', math.max(claimed, start + {CLAIM_MS}))
      return sent_away(start - now, cause)
    end
    local hint = get(lane, 'hint')
    if hint < start or hint > start + {SPREAD_MS} then
      hint = start
    else
      hint = hint + math.max(request_ms, token_ms * tokens, {NARROWEST_MS})
    end
    set(lane, 'hint', hint)
    return sent_away(hint - now, cause)
  end

  redis.call('ZREMRANGEBYSCORE', calls, '-inf', now)
  local adapted = get(lane, 'most')
  if adapted == 0 then adapted = most end
  if redis.call('ZCARD', calls) >= math.max(math.floor(math.min(adapted, most)), 1) then
    if waited then set(model, 'claimed_until', math.max(claimed, now + {CLAIM_MS})) end
    return sent_away({CROWDED_MS}, '{Cause.CROWDED}')
  end
  if request_ms > 0 then set(model, 'next_request', math.max(get(model, 'next_request'), start) + request_ms) end
  if token_ms > 0 then set(model, 'next_token', math.max(get(model, 'next_token'), start) + token_ms * tokens) end
  for _, key in ipairs({{engine, model, lane}}) do
    if get(key, 'probe_at') > 0 then set(key, 'probe_at', now + get(key, 'probe_after')) end
  end
  redis.call('ZADD', calls, start + lasts + {GRACE_MS}, id)
  redis.call('EXPIRE', calls, {KEPT_SECONDS})
  return {{'ok', text(start - now), share}}
end

local id, trued, cause, after = ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local notice, opens, most = ARGV[7], ARGV[8], tonumber(ARGV[9])
redis.call('ZREM', calls, id)
if trued ~= 0 then set(model, 'next_token', get(model, 'next_token') + trued) end
local adapted, paused = get(lane, 'most'), get(lane, 'paused_until')
if adapted == 0 then adapted = most end
if cause == '' then
  if adapted < most then set(lane, 'most', math.min(adapted + 1 / adapted, most)) end
  if get(lane, 'sheds') > 0 then redis.call('HDEL', lane, 'sheds', 'paused_until') end
  for _, key in ipairs({{engine, model, lane}}) do redis.call('HDEL', key, 'probe_at', 'probe_after', 'cause', 'notice') end
elseif cause == '{Cause.RATE}' then
  if now >= paused then set(lane, 'most', math.max(math.min(adapted, most) / 2, 1)) end
  set(lane, 'paused_until', math.max(paused, now + after))
elseif cause == '{Cause.SHED}' then
  local sheds = get(lane, 'sheds') + 1
  set(lane, 'sheds', sheds)
  if sheds >= {SHEDS} then
    set(lane, 'paused_until', math.max(paused, now + after * 2 ^ math.min(sheds - {SHEDS}, {SHED_DOUBLINGS})))
  end
elseif opens ~= '' then
  local key = opens == 'engine' and engine or lane
  redis.call('HSET', key, 'cause', cause, 'notice', notice)
  set(key, 'probe_at', now + after)
  set(key, 'probe_after', after)
end
return {{'ok'}}
"""


class RedisLimiter:
    """Limits shared by all processes that use the same Redis. Thread-safe; a process makes one."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        concurrency: int,
        economy: int | None = None,
        owner: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`concurrency`, `economy`: most calls of one model at a time, in each tier; if `economy` is None, both tiers have the
        same. `owner`: a name for this process. `clock`: gives milliseconds; None means the clock of Redis.
        """
        self._redis = client
        self._script = client.register_script(SCRIPT)
        self._concurrency = {Tier.STANDARD: concurrency, Tier.ECONOMY: economy or concurrency}
        self._owner = owner or random_id("", 12)
        self._clock = clock
        self._local = LocalLimiter(concurrency=concurrency, economy=economy)
        self._away_until = 0.0  # by time.monotonic(); until then, calls do not try an unavailable Redis

    def enter(self, model: Model, *, tokens: int, waited: bool, seconds: float, tier: Tier = Tier.STANDARD) -> Permit:
        waited = waited and tier is Tier.STANDARD
        request_ms, token_ms = spacings(model, tokens)
        id_ = random_id("", 16)
        given = [id_, self._owner, int(waited), seconds * 1000, request_ms, token_ms, tokens, self._concurrency[tier]]
        try:
            kind, wait, *said = self._run(model, tier, "enter", *given, ahead_of(tier, waited=waited))
        except AWAY as error:
            self._note_away(error)
            permit = self._local.enter(model, tokens=tokens, waited=waited, seconds=seconds, tier=tier)
            return replace(permit, id=f"{HERE}{permit.id}")
        self._local.share = 1 / max(int(said[-1]), 1)
        if kind == "away":
            raise away(model.name, float(wait), Cause(said[0]), said[1])
        return Permit(id=id_, model=model, tier=tier, tokens=tokens, delay=float(wait) / 1000)

    def leave(self, permit: Permit, *, tokens: int | None, trouble: ModelUnavailable | None) -> None:
        # Both limiters record the model's error. Only the limiter that reserved the tokens corrects their number.
        here = permit.id.startswith(HERE)
        entered = replace(permit, id=permit.id.removeprefix(HERE)) if here else permit
        self._local.leave(entered, tokens=tokens if here else None, trouble=trouble)
        _, token_ms = spacings(permit.model, permit.tokens)
        trued = 0.0 if tokens is None or here else token_ms * (tokens - permit.tokens)
        cause = trouble.cause if trouble else None
        opens = "engine" if cause in OPENS_ENGINE else "model" if cause in OPENS_MODEL else ""
        after, notice = (trouble.retry_after * 1000, trouble.notice) if trouble else (0, "")
        try:
            most = self._concurrency[permit.tier]
            self._run(permit.model, permit.tier, "leave", permit.id, trued, cause or "", after, notice, opens, most)
        except AWAY as error:
            self._note_away(error)

    def paused(self, model: Model, tier: Tier) -> float:
        try:
            _, milliseconds = self._run(model, tier, "paused")
        except AWAY as error:
            self._note_away(error)
            return self._local.paused(model, tier)
        return float(milliseconds) / 1000

    @classmethod
    def of(cls, url: str, *, concurrency: int, economy: int) -> RedisLimiter:
        """A limiter with its own client of the Redis at `url`."""
        return cls(connect(url, seconds=ANSWER_SECONDS), concurrency=concurrency, economy=economy)

    @redis_errors()
    def notices(self, models: Iterable[Model]) -> dict[str, str]:
        """The notices of models that are unavailable, by model name; "" is the engine. Raises Transient and Permanent."""
        names = ["", *(model.name for model in models)]
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hget(_key(name), "notice")
        found: list[Any] = pipe.execute()
        return {name: notice.decode() for name, notice in zip(names, found, strict=True) if notice is not None}

    @redis_errors()
    def stops(self, models: Iterable[Model]) -> list[Stop]:
        """Raises Transient and Permanent."""
        places = places_of(models)
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for name, tier in places:
            pipe.hmget(_key(lane_of(name, tier)), "cause", "paused_until")
        (seconds, micros), *found = pipe.execute()
        now = seconds * 1000 + micros / 1000 if self._clock is None else self._clock()
        stops = []
        for (name, tier), (cause, until) in zip(places, found, strict=True):
            why = Cause(cause.decode()) if cause else PAUSES[tier] if until and float(until) > now else None
            if why:
                stops.append(Stop(model=name, tier=tier, cause=why))
        return stops

    def close(self) -> None:
        self._redis.close()

    def _note_away(self, error: Exception) -> None:
        if not isinstance(error, _StillAway):
            log.warning("limits_not_shared", reason=repr(error))
            self._away_until = time.monotonic() + AWAY_SECONDS

    def _run(self, model: Model, tier: Tier, operation: str, *arguments: Any) -> list[str]:
        if time.monotonic() < self._away_until:
            raise _StillAway
        lane = lane_of(model.name, tier)
        keys = [_key(""), _key(model.name), f"{PREFIX}-calls:{lane}", WORKERS, _key(lane)]
        now = "" if self._clock is None else self._clock()
        answer: Any = self._script(keys=keys, args=[operation, now, *arguments])
        return [part.decode() for part in answer]


class _StillAway(ConnectionError):
    """Redis was unavailable a moment ago, so this call did not try it."""


def _key(name: str) -> str:
    return f"{PREFIX}:{name}"
