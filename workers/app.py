"""The worker process: a Celery worker with threads. Its only task runs a step."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down
from celery.worker import state

from config.open_files import raise_open_files
from config.roles import ALONE_CONNECTIONS
from config.settings import Settings
from pipeline.tracing import spans
from pipeline.tracing.start import FLUSH_SECONDS, start
from storage.queue.steps import Lease
from storage.redis.counts import Publisher
from storage.redis.messages import TASK
from storage.redis.signals import QUEUE, SLOW_QUEUE
from workers import alone
from workers.alive import touch
from workers.economy import watch_deadlines
from workers.engine_watch import watch_engine
from workers.lending import LentPlaces, look_always
from workers.listening import Listening, while_listening
from workers.priority_pool import PriorityPool
from workers.run import run_lease, run_message, run_step
from workers.threads import StartedTaskPool
from workers.wiring import WorkerParts, build_parts, threads_of

OTHER_FILES = 1024  #: files that a worker has open besides its threads' own: fetches, the database, Redis, decoders
SPARES = 4  #: spare threads for each thread of WORKER_CONCURRENCY; they start when places are lent: see workers/lending.py

Build = Callable[[Settings], tuple[WorkerParts, Celery, Callable[[], None]]]


def register(app: Celery, parts: WorkerParts) -> None:
    """Registers the task that runs a step with these parts."""

    @app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def run(step: int) -> None:
        run_step(parts, step)


def collect_less() -> None:
    """Makes Python look for reference cycles less often, and never among the objects that exist already.

    A chunk's URLs and records are tens of thousands of objects without cycles. Looking for cycles among them took 3 % of a
    worker's time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def open_more_files(threads: int) -> None:
    """Raises the limit of open files as far as needed and allowed. With libcurl, each request to S3 has three, and images are fetched too."""
    raise_open_files(3 * threads + OTHER_FILES)


def run_worker(settings: Settings, build: Build = build_parts) -> None:
    """Works until SIGTERM or SIGINT, then finishes its steps or hands them back: see workers/drain.py."""
    # Celery warns against running as root, because a pickled message can run code. Our messages are JSON and hold a number.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    start("worker", os.environ)
    parts, app, close = build(settings)
    register(app, parts)
    while_listening.append(partial(touch, settings.data_dir, "worker"))
    app.steps["consumer"].add(Listening)
    setup_logging.connect(_keep_our_logging)

    def drain(exitcode: int = 0, **_: object) -> None:
        parts.drain.begin(exitcode)

    worker_shutting_down.connect(drain)
    parts.drain.watch(parts.database, parts.signals, parts.leases, stop_taking=_stop_taking)
    publisher = Publisher(parts.signals, "worker")
    threading.Thread(target=watch_engine, args=(parts,), name="engine-watch", daemon=True).start()
    every, waited = threads_of(settings.worker_concurrency)
    open_more_files(every + waited + settings.economy_concurrency + SPARES * settings.worker_concurrency)
    reserved = PriorityPool(parts.signals, partial(run_message, parts), threads=waited, stopping=parts.stopping)
    slow = PriorityPool(
        parts.signals,
        partial(run_message, parts),
        threads=settings.economy_concurrency,
        stopping=parts.stopping,
        queue=SLOW_QUEUE,
    )
    threading.Thread(target=watch_deadlines, args=(parts,), name="deadlines", daemon=True).start()
    lent = LentPlaces()
    most = SPARES * settings.worker_concurrency
    spares = PriorityPool(
        parts.signals, partial(run_message, parts), threads=most, stopping=parts.stopping, queue=QUEUE, places=lent
    )
    parts.lending.lend_to(lent, places=most)
    threading.Thread(target=look_always, args=(parts.lending, parts.stopping), name="lending", daemon=True).start()
    app.backend  # noqa: B018 - loads it here, where no step waits for it
    collect_less()
    try:
        app.Worker(
            pool=StartedTaskPool,
            concurrency=every,
            queues=[QUEUE],
            loglevel="WARNING",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        ).start()
    finally:
        parts.drain.begin()
        reserved.close()
        spares.close()
        publisher.close()
        slow.close()  # while calls are in flight, the drain ends the process here: it hands their steps back
        close()
        spans.close(FLUSH_SECONDS)


def _stop_taking() -> None:
    """Does what Celery's own handler of SIGTERM does: Celery's loop ends, and its pool takes no more messages."""
    if state.should_stop is None:
        state.should_stop = 0


def run_alone(settings: Settings, build: Build = build_parts) -> None:
    """Runs the child that works on single steps for a worker: see workers/alone.py."""
    answers = alone.answers_apart()
    start("worker", os.environ)
    parts, _, _ = build(settings.model_copy(update={"database_connections": ALONE_CONNECTIONS}))
    parts = parts.for_one_step()
    Publisher(parts.signals, "alone")  # it is not closed, because it ends with the process

    def run(lease: Lease) -> None:
        run_lease(parts, lease)
        if spans.active is not None:  # the process may be killed at any time after its answer
            spans.active.flush(FLUSH_SECONDS)

    alone.serve(run, sys.stdin.buffer, answers)


def _keep_our_logging(**_: object) -> None:
    """Does nothing. Celery does not configure logging if this signal has a receiver."""
