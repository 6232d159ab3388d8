"""Builds the parts of a web process from Settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from limits import RateLimitItem, parse
from limits.storage import Storage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from api.announcing import EarlyAccounts
from api.key_uses import KeyUses
from api.places import Places
from api.previews import PREVIEW_PLACES, Previews, decoded_previews
from config.chosen_engine import kind_of, model_of, models_of
from config.engines import EngineKind
from config.settings import Settings
from pipeline.models import Model
from pipeline.ports import Scratch, Stop
from storage.account.secret import secret_key
from storage.database import Database, open_database
from storage.redis.model_limits import RedisLimiter
from storage.redis.signals import COUNTS_SECONDS, Signals, connect
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
    arriving: Places = field(default_factory=lambda: Places(ARRIVING))  #: for bodies while they arrive
    previews: Previews = field(default_factory=decoded_previews)
    key_uses: KeyUses = field(default_factory=KeyUses)
    early_accounts: EarlyAccounts = field(default_factory=EarlyAccounts)
    notices: Callable[[], dict[str, str]] = field(default=dict)  #: model → what somebody must fix before it can be asked
    stops: Callable[[], list[Stop]] = field(default=list)  #: the models whose calls are stopped now
    #: For how long a model's server may be away before a job that somebody holds open ends; under 30 s with the time to notice it.
    held_seconds: float = 18.0
    stopping: Callable[[], bool] = field(default=lambda: False)  #: whether waiting requests should be answered now


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """How many requests of each kind that may hold a thread and a connection for long a web process takes at once."""

    waiting: int  #: requests that are held open
    arriving: int  #: bodies that arrive, where a large one counts as LARGE_PLACES
    previews: int  #: previews that are made, or wait for a decoder

    @property
    def total(self) -> int:
        return self.waiting + self.arriving + self.previews

    def within(self, most: int) -> Room:
        """The same with `most` places in all. If that is fewer, each kind gets less in proportion, and a large body still fits."""
        if self.total <= most:
            return self
        arriving = max(LARGE_PLACES, self.arriving * most // self.total)
        previews = max(1, self.previews * most // self.total)
        return Room(waiting=max(1, most - arriving - previews), arriving=arriving, previews=previews)


def room_of(settings: Settings) -> Room:
    """The room that the settings ask for. Four times as many large bodies may arrive as may be parsed at once."""
    arriving = max(ARRIVING, 4 * LARGE_PLACES * settings.max_large_bodies)
    return Room(waiting=settings.max_waiters, arriving=arriving, previews=PREVIEW_PLACES)


def build_parts(settings: Settings, room: Room, stopping: Callable[[], bool] = lambda: False) -> WebParts:
    engine, _, warnings = model_of(settings)
    models = models_of(settings)
    limiter = RedisLimiter.of(settings.redis_url, concurrency=settings.model_concurrency, economy=settings.economy_calls)
    return WebParts(
        settings=settings,
        database=open_database(settings, "web"),
        scratch=open_scratch(settings),
        signals=Signals(settings.redis_url),
        secret_key=secret_key(settings),
        rate=parse(settings.rate_limit),
        # Of the library's strategies, this one counts by the clock of Redis. So web machines whose clocks differ agree.
        limiter=SlidingWindowCounterRateLimiter(rate_storage(settings.redis_url)),
        engine=engine,
        models=models,
        warnings=warnings,
        kind=kind_of(settings),
        waiting_places=Places(room.waiting),
        large_bodies=Places(settings.max_large_bodies),
        arriving=Places(room.arriving),
        previews=decoded_previews(room.previews),
        notices=lambda: limiter.notices(models.values()),
        stops=lambda: limiter.stops(models.values()),
        stopping=stopping,
    )


def rate_storage(redis_url: str) -> Storage:
    """Where the requests of each key are counted. Like our own clients, it does not wait again and again for a Redis that is silent."""
    pool = connect(redis_url, seconds=COUNTS_SECONDS).connection_pool
    return storage_from_string(limits_url(redis_url), connection_pool=pool)  # type: ignore[arg-type, return-value]


def limits_url(redis_url: str) -> str:
    """REDIS_URL in the spelling of the limits library."""
    return redis_url.replace("unix://", "redis+unix://", 1) if redis_url.startswith("unix://") else redis_url
