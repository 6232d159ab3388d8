"""Processes that die at a chosen effect: `python -m tests.fakes.lives`, for tests/e2e/test_real_crashes.py.

This process has imported all modules and compiled the SQL. It has one thread and no open connections, so it can fork. It reads
lines with a Life as JSON. For each line it forks a process that builds its parts and works. Because of the fork, a life starts
within milliseconds. At the chosen effect, the process ends with `os._exit`, so no `finally` and no rollback runs. This process
answers each line with a line that has a Lived as JSON.

SQL, scratch and Redis are real. Pictures, models and receivers are fakes. They record their calls in files of DATA_DIR, one JSON
line each: `asked` (the pictures of a model call) and `delivered` (id and body of a webhook).
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import structlog
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

import api.wiring
import workers.wiring
from api.app import create_app
from api.places import Places
from config.engines import ENGINES
from config.settings import Settings, load_settings
from pipeline.models import Model
from pipeline.outbound.webhook import WebhookResponse
from pipeline.ports import Scratch
from pipeline.types import Answer, Call, Finish, ItemCode, Tier
from storage.database import Database
from storage.queue.steps import Lease
from storage.redis.messages import read_message
from storage.redis.signals import QUEUE, SLOW_QUEUE, WAITED_QUEUE, Signals
from storage.scratch.open import open_scratch
from tests.fakes.crashing import Crashing, Wrapped, WrappedDatabase, WrappedScratch, crashing_parts
from tests.fakes.engine import FakeEngine
from tests.fakes.images import FakeFetch, fake_decode
from tests.fakes.text_reader import FakeTextReader
from tests.harness import URL
from workers.alone import Died, answers_apart
from workers.cleaning import Cleaning
from workers.economy import LastMoment
from workers.leases import LeaseKeeper
from workers.run import run_lease, run_step
from workers.supervisor import Supervisor

_lives = itertools.count()
CRASHED, POISONED, FAULTY = 9, 11, 1  #: exit codes: died at the effect; of a picture; of a bug
REFUSED, POISON = b"img refused", b"img poison"  #: a picture that the model refuses; one that kills the process that sends it
HURRIED = b"img hurried"  #: a picture for which the tier economy has no answer until its last moment
MODEL = Model(name="fake-1", price_in=1.0, price_out=1.0, flex=0.5)
#: Effects of a process that others can see. Reads are left out: a death at a read looks like a death after the effect before it.
#: Notifications of jobs are left out too, because they only make waiters read SQL, which they do anyway.
EFFECTS = frozenset({"commit", "put", "write", "delete", "ring", "ask", "decode", "fetch", "deliver"})


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a process must do, and when it must die."""

    role: str  #: worker, door or supervisor
    settings: dict[str, str]
    forked: bool = True  #: False: run it in the parent process, which takes half the time, and compiles the SQL for later forks
    at: int = 0  #: number of the effect to die at, from 1; 0 means never
    when: str = "before"  #: die before or after the effect
    pages: dict[str, str] = field(default_factory=dict)  #: URL → picture
    request: dict[str, Any] = field(default_factory=dict)  #: headers and body of the request, for the door


@dataclass(frozen=True, kw_only=True)
class Lived:
    """The result of a Life."""

    code: int  #: exit code
    effects: list[str]  #: names of its effects, in order
    said: str = ""  #: the door's answer


class Poisoned(BaseException):
    """Simulates that a separate process died of a picture."""


class Alone:
    """Replaces workers.alone.Alone and starts no child process. tests/component/workers/test_alone.py tests the real one."""

    def __init__(self, parts: workers.wiring.WorkerParts) -> None:
        def die() -> None:
            raise Poisoned

        self._parts = replace(parts, engine=_engine(parts.settings.data_dir, die)).for_one_step()

    def run(self, lease: Lease, *, seconds: float) -> None:
        try:
            run_lease(self._parts, lease)
        except Poisoned:
            raise Died("exit code 11") from None


def _engine(folder: Path, die: Callable[[], None]) -> FakeEngine:
    def answer(call: Call, _number: int) -> Answer | Exception | None:
        pictures = [picture.data.decode() for picture in call.pictures]
        _note(folder / "asked", pictures)
        if POISON.decode() in pictures:
            die()
        if HURRIED.decode() in pictures and call.tier is Tier.ECONOMY:
            return LastMoment()
        if REFUSED.decode() in pictures:
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY", model_version="fake-1.0")
        return None

    return FakeEngine(script=answer)


def _note(path: Path, what: Any) -> None:
    """Appends a line in one write, so that it is complete even if the process dies right after."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, json.dumps(what).encode() + b"\n")
    os.close(handle)


@cache
def _database(url: str) -> Database:
    """The database, cached so that forks share its compiled SQL. It has no open connection when a fork starts."""
    return Database(url)


@contextmanager
def _town(settings: Settings) -> Iterator[tuple[Database, Scratch, Signals]]:
    """The parts that a process shares with other processes."""
    database, signals = _database(settings.database_url), Signals(settings.redis_url)
    with closing(database), closing(signals):
        yield database, open_scratch(settings), signals


def work(life: Life, settings: Settings, crashing: Crashing) -> None:
    """Runs a worker, and a supervisor that announces steps, until nothing is due any more."""
    keeping = partial(LeaseKeeper, lease_seconds=settings.lease_seconds, step_seconds=settings.step_seconds)
    with _town(settings) as (database, scratch, signals), closing(keeping(database)) as leases, ThreadPoolExecutor(1) as decoding:
        parts = _worker(life, settings, database=database, scratch=scratch, signals=signals, leases=leases, decoding=decoding)
        alone: Any = Alone(parts)
        mortal = replace(crashing_parts(parts, crashing), alone=alone)
        supervisor = Supervisor(database=database, scratch=scratch, signals=signals)

        def work_through(parts: workers.wiring.WorkerParts) -> None:
            supervisor.ring()
            while (step := _message(signals)) is not None:
                run_step(parts, step)
                supervisor.ring()

        # No group's time comes. So all jobs are cleaned together when the worker ends, and the effects keep their order.
        with closing(Cleaning(mortal.database, mortal.scratch, mortal.signals, group_seconds=3600.0)) as cleaning:
            work_through(replace(mortal, cleaning=cleaning))
        work_through(mortal)


def _worker(life: Life, settings: Settings, **town: Any) -> workers.wiring.WorkerParts:
    fetch = FakeFetch()
    fetch.pages = {url: text.encode() for url, text in life.pages.items()}

    def deliver(_url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        _note(settings.data_dir / "delivered", [headers["webhook-id"], body.decode()])
        return WebhookResponse(status=204)

    return workers.wiring.WorkerParts(
        settings=settings,
        fetch=fetch,
        decode=fake_decode,
        engine=_engine(settings.data_dir, lambda: os._exit(POISONED)),
        text_reader=FakeTextReader(),
        ocr_places=workers.wiring.ocr_places(settings),
        models={MODEL.name: MODEL},
        deliver=deliver,
        secret_key=b"secret",
        webhook_places=workers.wiring.webhook_places(settings),
        owner=f"life {next(_lives)} of {os.getpid()}",
        **town,
    )


def _message(signals: Signals) -> int | None:
    """The step in the next message; None if there is no message."""
    for queue in (WAITED_QUEUE, QUEUE, SLOW_QUEUE):
        message: Any = signals.redis.rpop(queue)
        if message:
            return read_message(message).step
    return None


def answer_door(life: Life, settings: Settings, crashing: Crashing) -> str:
    """Sends one request to an API process. Returns status and body of its answer, as JSON."""
    with _town(settings) as town:
        database, scratch, signals = _mortal(*town, crashing)
        parts = api.wiring.WebParts(
            settings=settings,
            database=database,
            scratch=scratch,
            signals=signals,
            secret_key=b"secret",
            rate=parse(settings.rate_limit),
            limiter=SlidingWindowCounterRateLimiter(MemoryStorage()),
            engine="fake",
            models={MODEL.name: MODEL},
            warnings=(),
            kind=ENGINES["gemini"],
            waiting_places=Places(4),
            large_bodies=Places(4),
        )
        answer = create_app(parts).test_client().post(URL, json=life.request["body"], headers=life.request["headers"])
    return json.dumps([answer.status_code, answer.json])


def supervise(life: Life, settings: Settings, crashing: Crashing) -> None:
    """Runs one tick of a new supervisor. The first tick includes the tasks that are not done in each tick."""
    with _town(settings) as town:
        database, scratch, signals = _mortal(*town, crashing)
        Supervisor(database=database, scratch=scratch, signals=signals).tick()


def _mortal(database: Database, scratch: Scratch, signals: Signals, crashing: Crashing) -> tuple[Any, Any, Any]:
    return WrappedDatabase(database, crashing), WrappedScratch(scratch, crashing), Wrapped(signals, crashing)


ROLES: dict[str, Callable[[Life, Settings, Crashing], str | None]] = {
    "worker": work,
    "door": answer_door,
    "supervisor": supervise,
}


def live(life: Life) -> Lived:
    """Runs a Life, in a fork unless `forked` is False.

    It writes each effect to a pipe at once, because a dead process can't report anything.
    """
    mine, noted = os.pipe()
    child = os.fork() if life.forked else 0
    if child == 0:
        code = FAULTY
        try:
            _live(life, noted)
            code = 0
        except BaseException:
            if not life.forked:
                raise
            traceback.print_exc()
        finally:
            if life.forked:
                os._exit(code)
    os.close(noted)
    with os.fdopen(mine) as effects:
        lines = effects.read().splitlines()
    if life.forked:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
    said = [line.removeprefix("said ") for line in lines if line.startswith("said ")]
    names = [line for line in lines if not line.startswith("said ")]
    return Lived(code=code, effects=names, said="".join(said))


def _live(life: Life, noted: int) -> None:
    class Effects(list[str]):
        def append(self, name: str) -> None:
            super().append(name)
            os.write(noted, f"{name}\n".encode())

    settings = load_settings(life.settings)
    crashing = Crashing(life.at, life.when, die=lambda: os._exit(CRASHED), only=EFFECTS)
    crashing.calls = Effects()
    said = ROLES[life.role](life, settings, crashing)
    os.write(noted, f"said {said or ''}\n".encode())


def _drop(*_: object) -> dict[str, Any]:
    raise structlog.DropEvent


def main() -> None:
    structlog.configure(processors=[_drop])
    answers = answers_apart()
    for line in sys.stdin:
        assert threading.active_count() == 1, "what has threads can't fork"
        gc.collect()  # what lives in this process have left, which would stay for good
        gc.freeze()  # keeps the garbage collector from touching, and so copying, pages that are shared with forks
        answers.write(json.dumps(asdict(live(Life(**json.loads(line))))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
