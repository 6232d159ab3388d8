"""Runs a process of the service for the torture. It patches in poison and mutations, and then runs the product's own commands.

    python -m tests.torture.entry web|worker|supervisor [--alone]

TORTURE_CLOCK: seconds by which the process's wall clock is wrong. TORTURE_WITHOUT: the safeguard that is turned off.
The process and its children end when its standard input closes, because the torture has ended then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from tests.torture.plan import WORKER_POISON

ALONE = (sys.executable, "-m", "tests.torture.entry", "worker", "--alone")
DECODER = (sys.executable, "-m", "tests.torture.decode_child")
DECODE_SECONDS = 4.0  #: time limit for decoding; the product's 20 s is too long for the picture that hangs
#: How often scratch is swept, and how long an object without a job may stay there. The product uses 5 minutes and an hour.
SWEEP_SECONDS, UNKNOWN_SECONDS = 5.0, 40.0
DIED_OF_POISON = 66


def shift_clock(seconds: float) -> None:
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)


def end_with_the_torture() -> None:
    def watch() -> None:
        while os.read(0, 1):  # sys.stdin has a lock, which this thread would still hold when the interpreter ends
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="torture", daemon=True).start()


def take_out(safeguard: str) -> None:
    """Turns a safeguard off. The checker must notice that. rows.py removes the part of a safeguard that is in the database."""
    from sqlalchemy import bindparam

    from storage.job import closing
    from storage.queue import ringing, steps

    if safeguard == "fence":  # writes ignore the step's state and epoch
        steps._fence = lambda: steps.steps_table.c.id == bindparam("step")
    elif safeguard == "ledger":  # the closing code sees every job as open
        for status in closing.JobStatus:
            setattr(_NeverEnded, status.name, status)
        closing.JobStatus = _NeverEnded  # type: ignore[misc,assignment]
    elif safeguard == "ring":  # steps are announced once, after a commit, and never again
        ring = ringing.to_ring
        ringing.to_ring = lambda connection, *, beside=None, limit=500: ring(connection, beside=beside) if beside else []
        ringing.forget_rings = lambda _connection: None


class _NeverEnded(str):  # noqa: SLOT000 - take_out sets the statuses as attributes
    """Replaces pipeline.types.JobStatus in storage/job/closing.py."""

    ended = False


class PoisonedEngine:
    """An engine that kills its process when a call has a picture with WORKER_POISON."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def ask(self, call: Any) -> Any:
        if any(picture.data.endswith(WORKER_POISON) for picture in call.pictures):
            os._exit(DIED_OF_POISON)
        return self._engine.ask(call)


def poisoned(settings: Any) -> Any:
    """Builds a worker's parts with the poisoned engine and decoder. Adapt it if the product changes how it builds parts."""
    from pipeline.decode.pool import DecoderPool
    from workers.wiring import build_parts

    parts, app, close = build_parts(settings, alone_command=ALONE)
    parts.decode.close()
    decode = DecoderPool(children=os.cpu_count() or 1, command=DECODER, seconds=DECODE_SECONDS)
    return replace(parts, engine=PoisonedEngine(parts.engine), decode=decode), app, close


def main() -> None:
    shift_clock(float(os.environ.get("TORTURE_CLOCK", "0")))
    alone = "--alone" in sys.argv
    if not alone:
        end_with_the_torture()
    from cli import main as cli
    from workers import supervisor

    supervisor.SWEEP_SECONDS, supervisor.UNKNOWN_SECONDS = SWEEP_SECONDS, UNKNOWN_SECONDS
    take_out(os.environ.get("TORTURE_WITHOUT", ""))
    if sys.argv[1] != "worker":
        cli.main()
        return
    from workers.app import run_alone, run_worker

    cli._end_on_sigterm()
    settings = cli._running_settings("worker")
    cli._configure(settings)
    (run_alone if alone else run_worker)(settings, poisoned)


if __name__ == "__main__":
    main()
