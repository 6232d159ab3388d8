"""Builds the parts of a worker process from Settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from celery import Celery

from pipeline.engines.build import build_engine
from pipeline.ports import Decode, Engine, Fetch, Scratch
from pipeline.settings import Settings
from storage.database import Database
from storage.scratch import open_scratch
from storage.signals import Signals, celery_app, owner_name
from workers.leases import LeaseKeeper


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What the steps work with."""

    settings: Settings
    database: Database
    scratch: Scratch
    signals: Signals
    leases: LeaseKeeper
    fetch: Fetch
    decode: Decode
    decoding: Executor  #: one thread a decoder child
    engine: Engine
    owner: str


def build_parts(settings: Settings) -> tuple[Parts, Celery, Callable[[], None]]:
    """The parts, the Celery app they ring with, and what ends them all."""
    from pipeline.decode import DecoderPool
    from pipeline.fetch import Fetcher

    cores = os.cpu_count() or 1
    app = celery_app(settings.redis_url)
    database = Database(settings.database_url)
    decode = DecoderPool(children=cores)
    decoding = ThreadPoolExecutor(cores, thread_name_prefix="decoding")
    engine = build_engine(settings)
    fetch = Fetcher(settings.fetch_allow)
    leases = LeaseKeeper(database, lease_seconds=settings.lease_seconds, step_seconds=settings.step_seconds)
    parts = Parts(
        settings=settings,
        database=database,
        scratch=open_scratch(settings),
        signals=Signals(settings.redis_url, app),
        leases=leases,
        fetch=fetch,
        decode=decode,
        decoding=decoding,
        engine=engine,
        owner=owner_name(),
    )

    def close() -> None:
        leases.close()
        decoding.shutdown(wait=False, cancel_futures=True)
        decode.close()
        fetch.close()
        engine.close()
        parts.signals.close()
        database.close()

    return parts, app, close
