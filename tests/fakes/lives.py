"""Processes that die at a chosen effect: `python -m tests.fakes.lives`, for tests/e2e/test_real_crashes.py.

This process has imported everything and compiled the SQL; it has one thread, and holds nothing open. For each line it is
sent (a Life as JSON) it forks a process that builds its parts and works, and that ends by `os._exit` where it is told to: no
`finally`, no rollback, no goodbye. So a life begins within milliseconds. What it answers, a line each: Lived as JSON.

SQL, scratch and Redis are the real ones. What pictures, models and receivers do is fake, and what came to them stands in
files of DATA_DIR, a JSON line each: `asked` (the pictures of a call), `delivered` (id and body of a webhook).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from base64 import b64decode
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
from limits.strategies import MovingWindowRateLimiter

import api.wiring
import workers.wiring
from api.app import create_app
from config.settings import Settings, load_settings
from pipeline.models import Model
from pipeline.outbound.webhook import WebhookResponse
from pipeline.ports import Scratch
from pipeline.types import Answer, Call, Finish, ItemCode
from storage.database import Database
from storage.queue.steps import Lease
from storage.redis.signals import QUEUE, WAITED_QUEUE, Signals, step_of
from storage.scratch.open import open_scratch
from tests.fakes.crashing import Crashing, Wrapped, WrappedDatabase, WrappedScratch, crashing_parts
from tests.fakes.engine import FakeEngine
from tests.fakes.images import FakeFetch, fake_decode
from tests.harness import URL
from workers.alone import Died, answers_apart
from workers.leases import LeaseKeeper
from workers.run import run_lease, run_step
from workers.supervisor import Supervisor

CRASHED, POISONED, FAULTY = 9, 11, 1  #: exit codes: died where told to; of a picture; of a fault of ours
REFUSED, POISON = b"img refused", b"img poison"  #: pictures that the model refuses; that kill who shows them to it
#: What others can see of a process. Of a read they can't: to die of one is to die after the effect before it. And what is
#: told of a job only makes waiters look at SQL, as they do anyway.
EFFECTS = frozenset({"commit", "put", "write", "delete", "ring", "ask", "decode", "fetch", "deliver"})


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a process is to do, and when to die."""

    role: str  #: worker, door or supervisor
    settings: dict[str, str]
    forked: bool = True  #: False: lived by the process that forks, which so compiles the SQL for all that follow
    at: int = 0  #: the effect to die of, from 1; 0: of none
    when: str = "before"
    pages: dict[str, str] = field(default_factory=dict)  #: URL → picture
    request: dict[str, Any] = field(default_factory=dict)  #: door: headers and body


@dataclass(frozen=True, kw_only=True)
class Lived:
    """What became of it."""

    code: int
    effects: list[str]
    said: str = ""  #: the door's answer


class Poisoned(BaseException):
    """A process of its own has died of a picture, as far as who started it can see."""


class Alone:
    """As workers.alone.Alone, without a child: tests/component/workers/test_alone.py has the real one."""

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
    def answer(call: Call, _number: int) -> Answer | None:
        pictures = [picture.data.decode() for picture in call.pictures]
        _note(folder / "asked", pictures)
        if POISON.decode() in pictures:
            die()
        if REFUSED.decode() in pictures:
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY", model_version="fake-1.0")
        return None

    return FakeEngine(script=answer)


def _note(path: Path, what: Any) -> None:
    """In one write: whoever dies right after has made it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, json.dumps(what).encode() + b"\n")
    os.close(handle)


@cache
def _database(url: str) -> Database:
    """With what was compiled for it, and no connection when it comes to forking."""
    return Database(url)


@contextmanager
def _town(settings: Settings) -> Iterator[tuple[Database, Scratch, Signals]]:
    """What a process shares with the others."""
    database, signals = _database(settings.database_url), Signals(settings.redis_url)
    with closing(database), closing(signals):
        yield database, open_scratch(settings), signals


def work(life: Life, settings: Settings, crashing: Crashing) -> None:
    """A worker, and beside it what rings, until nothing more is due."""
    keeping = partial(LeaseKeeper, lease_seconds=settings.lease_seconds, step_seconds=settings.step_seconds)
    with _town(settings) as (database, scratch, signals), closing(keeping(database)) as leases, ThreadPoolExecutor(1) as decoding:
        parts = _worker(life, settings, database=database, scratch=scratch, signals=signals, leases=leases, decoding=decoding)
        alone: Any = Alone(parts)
        mortal = replace(crashing_parts(parts, crashing), alone=alone)
        supervisor = Supervisor(database=database, scratch=scratch, signals=signals)
        while True:
            supervisor.ring()
            step = _message(signals)
            if step is None:
                return
            run_step(mortal, step)


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
        models={},
        deliver=deliver,
        secret_key=b"secret",
        webhook_slots=workers.wiring.webhook_slots(settings),
        owner=f"life {os.getpid()}",
        **town,
    )


def _message(signals: Signals) -> int | None:
    """The step that the next message names."""
    for queue in (WAITED_QUEUE, QUEUE):
        message: Any = signals.redis.rpop(queue)
        if message:
            return step_of(json.loads(b64decode(json.loads(message)["body"])))
    return None


def answer_door(life: Life, settings: Settings, crashing: Crashing) -> str:
    """A front door that is sent one request; status and body of its answer."""
    with _town(settings) as town:
        database, scratch, signals = _mortal(*town, crashing)
        parts = api.wiring.WebParts(
            settings=settings,
            database=database,
            scratch=scratch,
            signals=signals,
            secret_key=b"secret",
            rate=parse(settings.rate_limit),
            limiter=MovingWindowRateLimiter(MemoryStorage()),
            engine="fake",
            models={"fake-1": Model(name="fake-1")},
            warnings=(),
            waiting_places=threading.BoundedSemaphore(4),
            large_bodies=threading.BoundedSemaphore(4),
        )
        answer = create_app(parts).test_client().post(URL, json=life.request["body"], headers=life.request["headers"])
    return json.dumps([answer.status_code, answer.json])


def supervise(life: Life, settings: Settings, crashing: Crashing) -> None:
    """One tick, with all that is done now and then."""
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
    """In a fork, if it is to be one. Each effect goes to a pipe as it comes, since nothing is said after a death."""
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
        gc.freeze()  # what the forks share stays shared
        answers.write(json.dumps(asdict(live(Life(**json.loads(line))))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
