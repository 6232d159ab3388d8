"""A worker, wired as the service wires it, whose fetches never end. A step may take half a second, and so may each wait of the drain."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from celery import Celery

from config.settings import Settings, load_settings
from pipeline.types import Failure, Fetched
from workers import drain
from workers.app import run_worker
from workers.wiring import WorkerParts, build_parts


def fetch_for_ever(urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
    threading.Event().wait()
    yield from ()


def build(settings: Settings) -> tuple[WorkerParts, Celery, Callable[[], None]]:
    parts, app, close = build_parts(settings)
    return replace(parts, fetch=fetch_for_ever), app, close


if __name__ == "__main__":
    drain.END_SECONDS = drain.EXIT_SECONDS = 0.5
    settings = load_settings(os.environ).model_copy(update={"lease_seconds": 0.5, "step_seconds": 0.5})
    run_worker(settings, build)
