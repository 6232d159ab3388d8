"""Runs a process of the service for the torture. It patches in poison and mutations, and then runs the product's own commands.

    python -m tests.torture.entry web|worker|supervisor [--alone]

TORTURE_CLOCK: seconds by which the process's wall clock is wrong. TORTURE_WITHOUT: the safeguard that is turned off.
The process and its children end when its standard input closes, because the torture has ended then.
"""

from __future__ import annotations

import os

from tests.torture.clock import shift_clock

if __name__ == "__main__":  # before other packages are imported, because some take the clock's functions at their import
    shift_clock(float(os.environ.get("TORTURE_CLOCK", "0")))

import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.torture.planned_jobs import WORKER_POISON

ALONE = (sys.executable, "-m", "tests.torture.entry", "worker", "--alone")
DECODER = (sys.executable, "-m", "tests.torture.decode_child")
DECODE_SECONDS = (
    10.0  #: time limit for decoding: 20 s, as usual, is too long for the picture that hangs, 4 s is too short on a loaded machine
)
DIED_OF_POISON = 66
OPENAI_MODEL = "vision:7b"
HANGING = ".hanging.example"  #: the end of names whose lookup does not answer
LOOKUP_SECONDS = 10.0  #: as long as the resolver tries, with the short time-outs that the service gives it


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
        lock = closing.lock_job
        closing.lock_job = lambda connection, job: replace(lock(connection, job), status=closing.JobStatus.RUNNING)
    elif safeguard == "ring":  # steps are announced once, after a commit, and never again
        ring = ringing.to_ring
        ringing.to_ring = lambda connection, *, beside=None, limit=500: ring(connection, beside=beside) if beside else []
        ringing.forget_rings = lambda _connection, slow: None


def hang_lookups() -> None:
    """Makes the names that end in HANGING never answer, as those of a DNS server that is silent. The others are looked up."""
    real = socket.getaddrinfo

    def lookup(host: Any, *rest: Any, **named: Any) -> Any:
        if (host.decode() if isinstance(host, bytes) else str(host)).endswith(HANGING):
            threading.Event().wait(LOOKUP_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *rest, **named)

    socket.getaddrinfo = lookup


class TorturedEngine:
    """Asks the engine of the call's model, and kills its process when a call has a picture with WORKER_POISON.

    The service itself has one engine in a deployment. Here each worker has all three, built as the service builds them, so that
    one run puts all of them under its faults.
    """

    def __init__(self, engine: Any, others: Mapping[str, Any]) -> None:
        self._engine = engine
        self._others = others  # model → its engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _of(self, model: str) -> Any:
        return self._others.get(model, self._engine)

    def ask(self, call: Any) -> Any:
        if any(picture.data.endswith(WORKER_POISON) for picture in call.pictures):
            os._exit(DIED_OF_POISON)
        return self._of(call.model).ask(call)

    def most_pictures(self, model: str) -> int:
        return int(self._of(model).most_pictures(model))

    def learn_pictures(self, model: str, most: int) -> None:
        self._of(model).learn_pictures(model, most)

    def close(self) -> None:
        for engine in (self._engine, *self._others.values()):
            engine.close()


def poisoned(settings: Any) -> Any:
    """Builds a worker's parts with the tortured engine and decoder. Adapt it if the product changes how it builds parts."""
    from config.chosen_engine import models_of
    from pipeline.decode.pool import DecoderPool
    from storage.redis.lessons import RedisLessons
    from workers.wiring import build_parts, governed_engine, late_engine

    parts, app, close = build_parts(settings, alone_command=ALONE)
    parts.decode.close()
    decode = DecoderPool(children=os.cpu_count() or 1, command=DECODER, seconds=DECODE_SECONDS)
    lessons = RedisLessons.of(settings.redis_url)
    others = {}
    for engine in ("openai", "ocr") if os.environ.get("OPENAI_BASE_URL") else ():
        own = settings.model_copy(
            update={"engine": engine, "models": None, "model": OPENAI_MODEL if engine == "openai" else settings.model}
        )
        name = next(iter(models_of(own)))
        others[name] = governed_engine(own, late_engine(own, decode.as_jpeg, lessons), parts.limiter, lambda: False)
    return replace(parts, engine=TorturedEngine(parts.engine, others), decode=decode), app, close


def main() -> None:
    hang_lookups()
    alone = "--alone" in sys.argv
    if not alone:
        end_with_the_torture()
    from cli import main as cli

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
