"""Runs the service's processes, restarts each one that ends, as an orchestrator does, and injects the process faults."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from testbed import ROOT, environment
from tests.torture.entry import DIED_OF_POISON
from tests.torture.planned_faults import PAUSE_SECONDS

RESTART_SECONDS = 1.0
LOOK_SECONDS = 0.1
END_SECONDS = 40.0
#: Seconds by which a process's wall clock is wrong. S3 refuses requests that are over 15 minutes off.
SKEW = {"worker-1": "1200", "worker-2": "-1200", "web-1": "600", "web-2": "-1200", "supervisor-1": "1200", "supervisor-2": "-600"}
SAID_LINES = 8  #: last lines of a dead process's log

Row = dict[str, Any]


class Fleet:
    """The service's processes.

    `settings(name)` are those of a process. `on_held(name, owner)` is called when one ends or is paused; its steps must be reclaimed
    soon. `trees`: name of a process → the folder of the code that it runs; the others run the code of this folder.
    """

    def __init__(
        self,
        folder: Path,
        settings: Callable[[str], Mapping[str, str]],
        names: tuple[str, ...],
        *,
        on_held: Callable[[str, str], None],
        trees: Mapping[str, Path] | None = None,
    ) -> None:
        self.folder = folder
        self._trees = trees or {}
        self.ports = {name: free_port() for name in names if name.startswith("web")}
        self.stops: list[Row] = []
        self.deaths: list[Row] = []  #: of processes that ended unasked
        self._settings = settings
        self._names = names
        self._on_held = on_held
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._since: dict[str, float] = {}  # when each ended process was found ended
        self._started: dict[str, float] = {}
        self._asked: set[int] = set()  # ids of the processes that the torture has ended
        self._away: dict[str, float] = {}  # role → until when its processes are not started again
        self._taken: set[str] = set()  # being stopped or paused; a pause during a stop would make the stop late
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def environment(self, name: str = "") -> dict[str, str]:
        given = environment(self.folder / "data" / (name or "cli"), **self._settings(name or "cli"))
        if name in self.ports:
            given |= {"PORT": str(self.ports[name])}
        if name in self._trees:
            given |= {"PYTHONPATH": str(self._trees[name])}
        return given | {"TORTURE_CLOCK": SKEW.get(name, "0")}

    def run(self, *arguments: str) -> str:
        """Runs a command of the product and returns its output."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout

    def start(self) -> None:
        for name in self._names:
            self._start(name)
        self._keeper.start()

    def _start(self, name: str) -> None:
        role = name.partition("-")[0]
        with (self.folder / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.entry", role],
                cwd=self._trees.get(name, ROOT),
                env=self.environment(name),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        with self._lock:
            self._running[name] = process
            self._started[name] = time.monotonic()

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for name, process in self.running():
                if process.poll() is None:
                    continue
                if name not in self._since:
                    self._since[name] = time.monotonic()
                    self._on_held(name, owner_of(process))
                    self._ended(name, process)
                elif time.monotonic() >= max(self._since[name] + RESTART_SECONDS, self._away.get(name.partition("-")[0], 0.0)):
                    del self._since[name]
                    finish(process)
                    self._start(name)

    def _ended(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Notes the process as a death, if the torture has not ended it."""
        if process.pid in self._asked or (name.startswith("worker") and process.returncode == DIED_OF_POISON):
            return
        said = self.tail(name, SAID_LINES).splitlines()
        self.deaths.append(
            {"at": time.time(), "process": name, "code": process.returncode, "said": [line[:300] for line in said]}
        )

    def away(self, role: str, seconds: float) -> str:
        """Kills all processes of a role, and starts none for so long."""
        self._away[role] = time.monotonic() + seconds
        names = []
        for name, process in self.running(role):
            self._kill(process)
            names.append(name)
        self._stop.wait(seconds)
        return ", ".join(names)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        self._asked.add(process.pid)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def running(self, role: str = "") -> list[tuple[str, subprocess.Popen[bytes]]]:
        with self._lock:
            return [(name, process) for name, process in self._running.items() if name.startswith(role)]

    def wait_until_serving(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        for name, port in self.ports.items():
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not start:\n{self.tail(name)}")
                time.sleep(0.05)

    def _pick(self, role: str, place: int) -> tuple[str, subprocess.Popen[bytes]]:
        found = self.running(role)
        return found[place % len(found)]

    @contextmanager
    def _taking(self, role: str, place: int) -> Iterator[tuple[str, subprocess.Popen[bytes]] | None]:
        """Reserves a process that is neither being stopped nor paused. Gives None if there is none."""
        with self._lock:
            free = [
                (name, process) for name, process in self._running.items() if name.startswith(role) and name not in self._taken
            ]
            name, process = free[place % len(free)] if free else ("", None)
            self._taken.add(name)
        try:
            yield (name, process) if process else None
        finally:
            with self._lock:
                self._taken.discard(name)

    def kill(self, role: str, place: int) -> str:
        """Kills a process and the children in its process group."""
        name, process = self._pick(role, place)
        self._kill(process)
        return name

    def kill_decoder(self, place: int) -> str:
        """Kills a decoder of the worker at this place, or of another one if that has none."""
        workers = self.running("worker")
        for at in range(len(workers)):
            name, process = workers[(place + at) % len(workers)]
            with suppress(psutil.Error):
                for child in reversed(
                    psutil.Process(process.pid).children(recursive=True)
                ):  # the decoder itself, not a parent of it
                    if any("decode_child" in word for word in child.cmdline()):
                        child.kill()
                        return f"a decoder of {name}"
        return ""

    def deploy(self, role: str, place: int) -> str:
        """Sends SIGTERM to a process, waits for its end, and records how it ended."""
        with self._taking(role, place) as taken:
            return self._stop_one(*taken) if taken else ""

    def _stop_one(self, name: str, process: subprocess.Popen[bytes]) -> str:
        if process.poll() is not None:
            return ""
        began = time.monotonic()
        age = began - self._started[name]
        self._asked.add(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            code: int | None = process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
        if code == -signal.SIGKILL:
            return ""
        seconds = time.monotonic() - began
        self.stops.append(
            {"process": name, "at": time.time() - seconds, "age": round(age, 2), "seconds": round(seconds, 2), "code": code}
        )
        return name

    @contextmanager
    def holding(self, role: str, place: int) -> Iterator[str]:
        """A process that is neither stopped nor paused meanwhile, "" if there is none. Its steps count as those of a dead one."""
        with self._taking(role, place) as taken:
            if taken:
                self._on_held(taken[0], owner_of(taken[1]))
            yield taken[0] if taken else ""

    def pause(self, role: str, place: int) -> str:
        with self._taking(role, place) as taken:
            if not taken:
                return ""
            name, process = taken
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
                self._on_held(name, owner_of(process))
                self._stop.wait(PAUSE_SECONDS)
                os.kill(process.pid, signal.SIGCONT)
            return name

    def tail(self, name: str, lines: int = 15) -> str:
        log = self.folder / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def end(self) -> None:
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for _, process in self.running():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        for _, process in self.running():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(deadline - time.monotonic(), 0.05))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            finish(process)


def owner_of(process: subprocess.Popen[bytes]) -> str:
    """Its name in a lease, as storage.redis.signals.owner_name gives it."""
    return f"{socket.gethostname()}:{process.pid}"


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for the process and closes its pipe."""
    process.wait()
    pipe: IO[bytes] | None = process.stdin
    if pipe:
        pipe.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
