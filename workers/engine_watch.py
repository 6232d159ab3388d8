"""Checks at start whether the engine can be used, and later whether it can be used again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog

from config.engine_check import EngineChecked, check_engine, check_engine_apart
from config.settings import Settings
from pipeline.errors import PartError
from pipeline.ports import Permit
from workers.wiring import WorkerParts

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 15.0  #: between two looks whether the calls are stopped


def watch_engine(
    parts: WorkerParts,
    *,
    first_check: Callable[[Settings], EngineChecked] = check_engine_apart,
    check: Callable[[Settings], EngineChecked] = check_engine,
    wait: Callable[[float], bool] | None = None,
) -> None:
    """Reports what a check at start finds. While the calls of the default model are stopped, checks again until the engine is usable.

    Without this, an idle service would stay stopped after its server has come back, because only a call would notice. Runs until
    the process stops. The first check runs in a process of its own, so that an idle worker whose engine is usable does not import the
    vendor's package. Tests replace `wait`, which returns whether the process stops.
    """
    wait = wait or parts.stopping.wait
    _report(parts, first_check(parts.settings))
    while not wait(AGAIN_SECONDS):
        with suppress(PartError):  # Redis is away
            if parts.limiter and parts.limiter.notices([parts.models[parts.engine.model]]):
                found = check(parts.settings)
                if found.usable:
                    _report(parts, found)


def _report(parts: WorkerParts, found: EngineChecked) -> None:
    """Logs in one line whether the engine can be used, and tells the limiter, so that /readyz and all workers know."""
    engine, model = parts.engine.name, parts.engine.model
    if found.usable:
        log.info("engine_usable", engine=engine, model=model, found=found.text)
    else:
        log.warning("engine_not_usable", engine=engine, model=model, found=found.text)
    if parts.limiter and (found.usable or found.trouble):
        permit = Permit(id=f"check-{parts.owner}", model=parts.models[model], tokens=0, delay=0)
        parts.limiter.leave(permit, tokens=None, trouble=found.trouble)
