"""Wraps the parts of a process so that the process dies before or after its n-th effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from workers.wiring import WorkerParts


class Crash(BaseException):
    """Simulates the death of the process. No code of the process catches it, because it is no Exception."""


def crash() -> None:
    """Simulates a death within the test's process. Other parts see the same as after a real death."""
    raise Crash


class Crashing:
    """Counts effects and dies `before` or `after` one of them. Every later effect dies too.

    `at`: the number of the effect, from 1; 0 means never. `only`: the names of the effects that count; None means all.
    """

    def __init__(self, at: int, when: str, *, die: Callable[[], None] = crash, only: frozenset[str] | None = None) -> None:
        self.calls: list[str] = []
        self.fired = False
        self.when = when
        self._at = at
        self._die = die
        self._only = only
        self._lock = threading.Lock()

    @contextmanager
    def point(self, name: str) -> Iterator[None]:
        if self._only is not None and name not in self._only:
            yield
            return
        with self._lock:
            if self.fired:
                self._die()
            self.calls.append(name)
            due = len(self.calls) == self._at
            self.fired = due
        if due and self.when == "before":
            self._die()
        yield
        if due:
            self._die()

    def call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*values: Any, **options: Any) -> Any:
            with self.point(name):
                return function(*values, **options)

        return run


class Wrapped:
    """A part whose method calls are counted as effects. Iterators of the `listed` methods are read to the end in the call."""

    def __init__(self, part: Any, crashing: Crashing, *, listed: tuple[str, ...] = ()) -> None:
        self._part = part
        self._crashing = crashing
        self._listed = listed

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if not callable(value):
            return value
        function = (lambda *values: list(value(*values))) if name in self._listed else value
        return self._crashing.call(name, function)


class WrappedScratch(Wrapped):
    """A scratch store that can also die during a put, because each read of the body counts as an effect."""

    def __init__(self, part: Any, crashing: Crashing) -> None:
        super().__init__(part, crashing, listed=("list",))

    def put(self, key: str, body: Any) -> None:
        self._crashing.call("put", self._part.put)(key, _Body(body, self._crashing))


class _Body:
    def __init__(self, body: Any, crashing: Crashing) -> None:
        self.seek = body.seek
        self.read = crashing.call("write", body.read)


class WrappedDatabase:
    """A database that can die before or after a transaction's commit."""

    def __init__(self, database: Any, crashing: Crashing) -> None:
        self._database = database
        self._crashing = crashing
        self.many_writers = database.many_writers

    @contextmanager
    def write(self) -> Iterator[Any]:
        # The commit is the effect. A death "before" it rolls the block back. A death "after" it happens once the commit is done.
        before = self._crashing.when == "before"
        with nullcontext() if before else self._crashing.point("commit"), self._database.write() as connection:
            yield connection
            if before:
                with self._crashing.point("commit"):
                    pass

    @contextmanager
    def statements(self) -> Iterator[Any]:
        if not self.many_writers:
            with self.write() as connection:
                yield connection
            return
        with self._crashing.point("commit"), self._database.statements() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Any]:
        with self._crashing.point("read"), self._database.read() as connection:
            yield connection


def crashing_parts(parts: WorkerParts, crashing: Crashing) -> WorkerParts:
    """The parts of a worker, wrapped."""
    database: Any = WrappedDatabase(parts.database, crashing)
    scratch: Any = WrappedScratch(parts.scratch, crashing)
    signals: Any = Wrapped(parts.signals, crashing)
    engine: Any = Wrapped(parts.engine, crashing)
    text_reader: Any = Wrapped(parts.text_reader, crashing)
    return replace(
        parts,
        database=database,
        scratch=scratch,
        signals=signals,
        engine=engine,
        text_reader=text_reader,
        fetch=crashing.call("fetch", lambda *values, **options: list(parts.fetch(*values, **options))),
        decode=crashing.call("decode", lambda pictures: _given(list(parts.decode(pictures)))),
        deliver=crashing.call("deliver", parts.deliver),
    )


def _given(values: list[Any]) -> Generator[Any]:
    yield from values
