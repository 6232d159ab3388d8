"""Checks a record in a child process, because the check may take long or much memory. See pipeline/records/child.py.

A child checks one record after another. If a check takes longer than SECONDS or more memory than MEMORY, its child ends, and the
next check starts another.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import Transient, os_errors
from pipeline.numbers import write_json
from pipeline.turns import Turns, current_account

SECONDS = 5.0  #: for one check
START_SECONDS = 30.0  #: for the start of a child, which usually takes 0.1 s
MEMORY = 1 << 30  #: bytes of address space of a child
PLACES = 2  #: children at once; accounts wait for them in turns
TOO_LONG = f"it takes more than {SECONDS:g} s to check; send a simpler schema, or ask for a shorter result"
#: -P keeps the child from importing modules of the same names from the working directory.
COMMAND = (sys.executable, "-P", "-m", "pipeline.records.child")
_ROOT = Path(__file__).resolve().parents[2]


class Checkers:
    """The children of a process. A child is started when it is first needed. Thread-safe."""

    def __init__(self, *, seconds: float = SECONDS, memory: int = MEMORY, places: int = PLACES) -> None:
        self._seconds = seconds
        self._memory = memory
        self._turns = Turns(places)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []

    def check(self, schema: Mapping[str, Any], record: Any) -> str:
        """What is wrong with the record. Empty if it fits. Waits for the turn of the thread's account.

        Raises Transient if no child can be started.
        """
        asked = write_json([schema, record], ensure_ascii=True).encode() + b"\n"
        with self._turns.place(current_account()), os_errors():
            with self._lock:
                child = self._idle.pop() if self._idle else None
            child = child or _Child(self._memory)
            said = child.answer(asked, self._seconds)
            if said is None:
                child.end()
                return TOO_LONG
            with self._lock:
                self._idle.append(child)
            return said

    def close(self) -> None:
        """Ends the children that check nothing now."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()


class _Child:
    def __init__(self, memory: int) -> None:
        environment = {"PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]), "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            (*COMMAND, str(memory)),
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        if self.answer(b"", START_SECONDS) is None:
            self.end()
            raise Transient("a child that checks records did not start")

    def answer(self, asked: bytes, seconds: float) -> str | None:
        """The child's next line, after it was sent `asked`. None if it ended, or sent none for `seconds`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(seconds, self._process.kill)
        late.start()
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(asked)
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            late.cancel()
        return line.decode("utf-8", "replace").rstrip("\n") if line.endswith(b"\n") else None

    def end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()


_checkers = Checkers()
atexit.register(_checkers.close)


def checked_apart(schema: Mapping[str, Any], record: Any) -> str:
    """What is wrong with the record, as the children of this process say. Empty if it fits."""
    return _checkers.check(schema, record)
