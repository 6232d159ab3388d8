"""The worker process: a Celery worker with threads, whose one task runs a step."""

from __future__ import annotations

import warnings

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging

from pipeline.settings import Settings
from storage.signals import QUEUE, TASK, WAITED_QUEUE
from workers.listening import Listening, WatchedRequest
from workers.run import run_step
from workers.wiring import Parts, build_parts


def register(app: Celery, parts: Parts) -> None:
    """Makes the app's task work with these parts."""

    @app.task(name=TASK, ignore_result=True, Request=WatchedRequest)  # type: ignore[untyped-decorator]
    def run(step: int) -> None:
        run_step(parts, step)


def run_worker(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT, then ends what it has begun."""
    # Celery warns of root because of pickled messages; ours are JSON, and hold a number.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    parts, app, close = build_parts(settings)
    register(app, parts)
    app.steps["consumer"].add(Listening)
    setup_logging.connect(_keep_our_logging)
    try:
        app.Worker(
            pool="threads",
            concurrency=settings.worker_concurrency,
            queues=[WAITED_QUEUE, QUEUE],
            loglevel="WARNING",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        ).start()
    finally:
        close()


def _keep_our_logging(**_: object) -> None:
    """Celery leaves logging alone where this signal has a receiver."""
