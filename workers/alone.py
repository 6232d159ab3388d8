"""Runs a suspect step alone in a child process, so that a crash shows which step caused it.

Steps run in threads. When a worker process dies, the leases of all its steps expire, and nobody can tell which step caused it.
A step whose lease has expired twice therefore runs here.

The parent writes leases to the child's standard input, as JSON, one per line. The child answers READY when it has started, and
DONE after each step, whether the step succeeded or failed. The child runs many steps, one after another, and ends with its parent.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO

from pipeline.types import StepKind
from storage.queue.steps import Lease

#: The command of a child. -P keeps it from importing modules of the same names from the working directory: see cli/serve.py.
COMMAND = (sys.executable, "-P", "-m", "cli.main", "worker", "--alone")
READY, DONE = b"ready\n", b"done\n"
START_SECONDS = 60.0
END_SECONDS = 5.0  #: how long a child that has closed its pipes may take to exit
SEATS = 2  #: children at once; each needs as much memory as a worker


class Died(Exception):
    """While the child worked on the step, it ended or did not answer in time."""


class NoSlot(Exception):
    """All children are busy, or a child can't be started. The step is not to blame."""


class Alone:
    """The children of a worker process. A child is started when it is first needed. Thread-safe."""

    def __init__(self, command: Sequence[str] = COMMAND, *, slots: int = SEATS) -> None:
        self._command = list(command)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._slots = threading.Semaphore(slots)

    def run(self, lease: Lease, *, seconds: float) -> None:
        """Has a child work on the step, and returns when the step has ended. Raises NoSlot and Died."""
        if not self._slots.acquire(blocking=False):
            raise NoSlot
        try:
            child = self._idle_child() or _Child(self._command)
            try:
                child.work(lease, seconds)
            except BaseException:
                child.end()
                raise
            with self._lock:
                self._idle.append(child)
        finally:
            self._slots.release()

    def _idle_child(self) -> _Child | None:
        """An idle child that is alive, if there is one. Dead idle children are dropped, because no step caused their death."""
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.alive():
                    return child
                child.end()
        return None

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()


class _Child:
    """One child process. Only one thread uses it at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the process and waits until it is ready. Raises NoSlot."""
        try:
            # The child gets its own session. Otherwise Ctrl-C would end it too, and that would look like a crash of the step.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise NoSlot(str(error)) from error
        if self._read(START_SECONDS) != READY:
            self.end()
            raise NoSlot("the child did not start")

    def alive(self) -> bool:
        return self._process.poll() is None

    def work(self, lease: Lease, seconds: float) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(asdict(lease)).encode() + b"\n")
        except OSError:
            raise Died(self._status()) from None
        answer = self._read(seconds)
        if answer is None:
            raise Died(f"no end after {seconds:g} s")
        if answer != DONE:
            raise Died(self._status())

    def _read(self, seconds: float) -> bytes | None:
        """The child's next line, which is cut short or empty if the child has ended. None if nothing comes in time."""
        assert self._process.stdout
        readable = select.poll()
        readable.register(self._process.stdout, select.POLLIN)
        return self._process.stdout.readline() if readable.poll(seconds * 1000) else None

    def _status(self) -> str:
        try:
            code = self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            return "it said what no child of ours says"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


def answers_apart() -> IO[bytes]:
    """The child's standard output, reserved for its answers. From now on, all other output goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def serve(run: Callable[[Lease], None], requests: IO[bytes], answers: IO[bytes]) -> None:
    """Runs in the child: works on each lease it receives, one at a time. When the parent ends, it exits, even during a step."""
    waiting: list[bytes] = []
    changed = threading.Condition()

    def read() -> None:
        for line in requests:
            with changed:
                waiting.append(line)
                changed.notify()
        os._exit(0)

    threading.Thread(target=read, name="parent", daemon=True).start()
    answers.write(READY)
    answers.flush()
    while True:
        with changed:
            changed.wait_for(lambda: waiting)
            line = waiting.pop(0)
        run(_lease(line))
        answers.write(DONE)
        answers.flush()


def _lease(line: bytes) -> Lease:
    """Parses a lease that `_Child.work` wrote."""
    fields = json.loads(line)
    return Lease(**{**fields, "kind": StepKind(fields["kind"])})
