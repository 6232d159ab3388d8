"""Builds the parts of a worker process from Settings."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from celery import Celery

from config.chosen_engine import build_engine, kind_of, model_of, models_of
from config.engines import text_reader
from config.settings import Settings
from pipeline.asking.memory_budget import MemoryBudget
from pipeline.decode.once import SharedDecodes
from pipeline.fetch.once import SharedFetches
from pipeline.models import Model
from pipeline.ports import Decode, Deliver, Engine, Fetch, Lessons, Limiter, Reencode, Scratch, TextReader
from pipeline.types import MB
from storage.account.secret import secret_key
from storage.database import Database, open_database
from storage.redis.lessons import RedisLessons
from storage.redis.model_limits import RedisLimiter
from storage.redis.signals import Signals, celery_app, owner_name
from storage.scratch.open import open_scratch
from workers.alone import COMMAND, Alone
from workers.cleaning import Cleaning
from workers.drain import Drain
from workers.handed_back import HandedBack
from workers.late_engine import LateEngine
from workers.leases import LeaseKeeper
from workers.lending import Lending
from workers.memory import give_back
from workers.metered_engine import MeteredEngine
from workers.ocr_places import OcrPlaces
from workers.staging_turns import AT_ONCE, StagingTurns
from workers.threads import started_pool
from workers.webhook_places import WebhookPlaces

CALL_BYTES = 64 * MB  #: of pictures in concurrent model calls; the calls need 4 to 5 times as much memory
SLOW_CALL_BYTES = 128 * MB  #: the same for calls in the tier economy, whose requests wait on the disk
SLOW_SEEN = 50  #: how many of the last answers in the tier economy the plan looks at
EX_TEMPFAIL = 75  #: from sysexits.h: the process should be started again


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerParts:
    """The parts that the steps work with."""

    settings: Settings
    database: Database
    scratch: Scratch
    signals: Signals
    leases: LeaseKeeper
    fetch: Fetch
    decode: Decode
    decoding: Executor  #: two threads per decoder child: while one waits for the child, the other prepares the next image
    engine: Engine
    load_engine: Callable[[], None] = lambda: None  #: called when a step is claimed that will need the engine
    text_reader: TextReader  #: the OCR, whichever engine is chosen
    ocr_places: OcrPlaces  #: for threads that wait for the text reader
    models: Mapping[str, Model]  #: the models that a job may name
    limiter: Limiter | None = None  #: of the models; None: the engine has no limits that processes share
    memory_budget: MemoryBudget = field(default_factory=lambda: MemoryBudget(CALL_BYTES))  #: for the pictures of model calls
    slow_memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(SLOW_CALL_BYTES))  #: the same for slow calls
    slow_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=SLOW_SEEN))  #: how long the last slow answers took
    deliver: Deliver
    secret_key: bytes  #: encrypts webhook secrets
    webhook_places: WebhookPlaces  #: for concurrent webhook calls
    owner: str
    drain: Drain = field(default_factory=Drain)
    ahead: Executor | None = None  #: stages images of small requests while their steps are claimed; None: nothing does
    shared_fetches: SharedFetches = field(default_factory=SharedFetches)
    lending: Lending = field(default_factory=Lending)  #: the places of steps that wait for slow image servers
    staging_turns: StagingTurns = field(default_factory=StagingTurns)  #: for the chunks of each account
    shared_decodes: SharedDecodes = field(default_factory=SharedDecodes)
    handed_back: HandedBack | None = None  #: announces steps that were handed back; None: only a supervisor does
    clock: Callable[[], float] = time.monotonic  #: seconds; times the slow calls
    cleaning: Cleaning | None = None  #: runs cleanup steps in groups; None: the thread that claimed one runs it
    alone: Alone | None = None  #: runs suspect steps in a child process; None: they run in this process

    @property
    def stopping(self) -> threading.Event:
        """Once this is set, the process claims no new steps."""
        return self.drain.stopping

    def for_one_step(self) -> WorkerParts:
        """The parts of a process that works only on the steps it is given and claims none that follow."""
        alone = replace(self, alone=None, ahead=None, handed_back=None, cleaning=None, drain=Drain())
        alone.stopping.set()
        return alone


def threads_of(concurrency: int) -> tuple[int, int]:
    """How many threads serve steps for which nobody waits, and how many serve the others.

    Large jobs get three quarters of `concurrency`, but at least one. The threads are apart, because a message that Celery takes costs
    a worker ten times as much time as one that it takes itself, and callers notice that.
    """
    return max(concurrency - max(concurrency // 4, 1), 1), concurrency


def webhook_places(settings: Settings) -> WebhookPlaces:
    """Places for calls at once: three fifths of the threads for all accounts, and a quarter for an account's calls of one receiver."""
    threads = settings.worker_concurrency
    return WebhookPlaces(max(threads * 3 // 5, 2), of_host=max(threads // 4, 1))


def ocr_places(settings: Settings) -> OcrPlaces:
    """Places for threads that wait for the OCR: a quarter of the threads, but two, so that an account leaves one to others."""
    return OcrPlaces(max(settings.worker_concurrency // 4, 2))


def late_engine(settings: Settings, reencode: Reencode, lessons: Lessons | None = None) -> LateEngine:
    """The engine that the settings choose. It is built when a step needs it."""

    def build() -> Engine:
        engine = build_engine(settings, reencode, lessons)
        gc.freeze()  # as workers/app.py does for all that was imported at start
        return engine

    name, model, warnings = model_of(settings)
    return LateEngine(build, name=name, model=model, warnings=warnings)


def governed_engine(settings: Settings, engine: Engine, limiter: Limiter, spare: Callable[[], bool]) -> Engine:
    """Counts the engine's calls. If its kind is governed, its calls obey the limits that all workers share."""
    engine = MeteredEngine(engine)
    if not kind_of(settings).governed:
        return engine
    from pipeline.engines.governed import GovernedEngine

    return GovernedEngine(engine, limiter=limiter, models=models_of(settings), spare=spare)


def build_parts(settings: Settings, *, alone_command: Sequence[str] = COMMAND) -> tuple[WorkerParts, Celery, Callable[[], None]]:
    """The parts, the Celery app that takes their messages, and a function that closes all of them.

    `alone_command` starts a child that runs single steps (workers/alone.py).
    """
    from pipeline.decode.pool import DecoderPool
    from pipeline.fetch.fetcher import Fetcher
    from pipeline.outbound.guard import shorten_lookups
    from pipeline.outbound.webhook_call import WebhookCaller

    shorten_lookups()
    cores = os.cpu_count() or 1
    app = celery_app(settings.redis_url)
    database = open_database(settings, "worker")
    decode = DecoderPool(children=cores)
    decoding = started_pool(2 * cores, "decoding")
    every, waited = threads_of(settings.worker_concurrency)
    # With SQLite a claim takes no time, so there is nothing to gain beside it.
    ahead = ThreadPoolExecutor(waited, thread_name_prefix="ahead") if database.many_writers else None
    limiter = RedisLimiter.of(settings.redis_url, concurrency=settings.model_concurrency, economy=settings.economy_calls)
    fetch = Fetcher(settings.fetch_allow, per_host=settings.fetch_per_host)
    drain = Drain()
    leases = LeaseKeeper(
        database,
        lease_seconds=settings.lease_seconds,
        step_seconds=settings.step_seconds,
        on_stuck=partial(drain.begin, EX_TEMPFAIL),
        on_rest=give_back,
    )
    memory_budget = MemoryBudget(CALL_BYTES)

    def spare() -> bool:
        """Whether a thread may wait with its pictures in memory without delaying other work."""
        return not drain.stopping.is_set() and leases.busy() < every and not memory_budget.is_wanted()

    lessons = RedisLessons.of(settings.redis_url)
    late = late_engine(settings, decode.as_jpeg, lessons)
    engine = governed_engine(settings, late, limiter, spare)
    reader = text_reader(settings.data_dir)
    alone = Alone(alone_command)
    signals = Signals(settings.redis_url)
    scratch = open_scratch(settings)
    cleaning = Cleaning(database, scratch, signals)
    parts = WorkerParts(
        settings=settings,
        database=database,
        scratch=scratch,
        signals=signals,
        leases=leases,
        fetch=fetch,
        decode=decode,
        decoding=decoding,
        engine=engine,
        load_engine=late.load_soon,
        text_reader=reader,
        ocr_places=ocr_places(settings),
        models=models_of(settings),
        limiter=limiter if kind_of(settings).governed else None,
        memory_budget=memory_budget,
        deliver=WebhookCaller(settings.webhook_allow),
        secret_key=secret_key(settings),
        webhook_places=webhook_places(settings),
        owner=owner_name(),
        drain=drain,
        ahead=ahead,
        staging_turns=StagingTurns(AT_ONCE),
        handed_back=HandedBack(database, signals, drain.stopping),
        cleaning=cleaning,
        alone=alone,
    )

    def close() -> None:
        cleaning.close()
        alone.close()
        leases.close()
        if ahead:
            ahead.shutdown(wait=False, cancel_futures=True)
        decoding.shutdown(wait=False, cancel_futures=True)
        decode.close()
        fetch.close()
        engine.close()
        reader.close()
        limiter.close()
        lessons.close()
        parts.signals.close()
        database.close()

    return parts, app, close
