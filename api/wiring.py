"""Builds the parts of a web process from Settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from limits import RateLimitItem, parse
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from api.key_uses import KeyUses
from api.places import Places
from api.previews import Previews, decoded_previews
from config.chosen_engine import kind_of, model_of, models_of
from config.engines import EngineKind
from config.settings import Settings
from pipeline.models import Model
from pipeline.ports import Scratch
from storage.account.secret import secret_key
from storage.database import Database
from storage.redis.model_limits import RedisLimiter
from storage.redis.signals import Signals
from storage.scratch.open import open_scratch

LARGE_PLACES = 8  #: how many places a body over 1 MB takes while it arrives, because it takes room on the disk
ARRIVING = 16 * LARGE_PLACES  #: the least number of places for bodies that are not here in whole yet; each holds a thread


@dataclass(frozen=True, kw_only=True, slots=True)
class WebParts:
    """The parts that the endpoints work with."""

    settings: Settings
    database: Database
    scratch: Scratch
    signals: Signals
    secret_key: bytes
    rate: RateLimitItem
    limiter: SlidingWindowCounterRateLimiter
    engine: str
    models: Mapping[str, Model]  #: the models that a request may name; the first one is the default
    warnings: tuple[str, ...]  #: the engine's warnings, which every job gets
    kind: EngineKind  #: what the engine can do
    waiting_places: Places  #: one for each request that is held open
    large_bodies: Places  #: one for each body over 1 MB that has arrived, while it is parsed and stored
    arriving: Places = field(default_factory=lambda: Places(ARRIVING))  #: for bodies while they arrive; see `arriving_places`
    previews: Previews = field(default_factory=decoded_previews)
    key_uses: KeyUses = field(default_factory=KeyUses)
    notices: Callable[[], dict[str, str]] = field(default=dict)  #: model → what somebody must fix before it can be asked
    #: For how long a model's server may be away before a job that somebody holds open ends; under 30 s with the time to notice it.
    held_seconds: float = 18.0
    stopping: Callable[[], bool] = field(default=lambda: False)  #: whether waiting requests should be answered now


def arriving_places(settings: Settings) -> int:
    """How many bodies may arrive at once. It suffices for four times as many large bodies as may be parsed at once."""
    return max(ARRIVING, 4 * LARGE_PLACES * settings.max_large_bodies)


def build_parts(settings: Settings, stopping: Callable[[], bool] = lambda: False) -> WebParts:
    engine, _, warnings = model_of(settings)
    models = models_of(settings)
    limiter = RedisLimiter.of(settings.redis_url, concurrency=settings.model_concurrency)
    return WebParts(
        settings=settings,
        database=Database(settings.database_url),
        scratch=open_scratch(settings),
        signals=Signals(settings.redis_url),
        secret_key=secret_key(settings),
        rate=parse(settings.rate_limit),
        # Of the library's strategies, this one counts by the clock of Redis. So web machines whose clocks differ agree.
        limiter=SlidingWindowCounterRateLimiter(storage_from_string(limits_url(settings.redis_url))),
        engine=engine,
        models=models,
        warnings=warnings,
        kind=kind_of(settings),
        waiting_places=Places(settings.max_waiters),
        large_bodies=Places(settings.max_large_bodies),
        arriving=Places(arriving_places(settings)),
        notices=lambda: limiter.notices(models.values()),
        stopping=stopping,
    )


def limits_url(redis_url: str) -> str:
    """REDIS_URL in the spelling of the limits library."""
    return redis_url.replace("unix://", "redis+unix://", 1) if redis_url.startswith("unix://") else redis_url
