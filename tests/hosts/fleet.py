"""The hosts of a deployment and what runs on them. Each process that ends is started again, as systemd does."""

from __future__ import annotations

import itertools
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hosts.host import Host, Network, Process, disk
from tests.torture.entry import DIED_OF_POISON

NET = "10.22.0"
OUTSIDE = f"{NET}.1"  #: where the client, the model, the images and the webhooks' receiver are
#: The parts that others reach by their address, which stays when another host takes over.
FIXED = {"proxy": f"{NET}.2", "postgres": f"{NET}.3", "redis": f"{NET}.4", "s3": f"{NET}.5"}
RESTART_SECONDS = 1.0
LOOK_SECONDS = 0.1
END_SECONDS = 40.0
SAID_LINES = 8
FREE_SECONDS = 20.0  #: how long a fault waits for a host that has none

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What runs on a host."""

    command: Sequence[str]
    settings: dict[str, str]
    prepare: Callable[[Host], None] | None = None  #: on a new host, before the command runs


class Fleet:
    """The hosts by their labels, such as `worker-1`, and the process on each.

    `service(label)`: what runs there. `on_held(label, owner)` is called when a host or its process is lost, cut off or ended; its
    steps must be reclaimed soon. `on_moved`: called when a host has another address.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        service: Callable[[str], Service],
        *,
        on_held: Callable[[str, str], None],
        on_moved: Callable[[str], None],
    ) -> None:
        self.hosts: dict[str, Host] = {}
        self.stops: list[Row] = []
        self.deaths: list[Row] = []
        self.names: list[str] = []  #: all host names that there were
        self._folder, self._network, self._service = folder, network, service
        self._on_held, self._on_moved = on_held, on_moved
        self._lock = threading.RLock()
        self._running: dict[str, Process] = {}
        self._asked: set[int] = set()  # ids of the processes that the faults have ended
        self._taken: set[str] = set()
        self._numbers = itertools.count(1)
        self._disks = ExitStack()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    # --- hosts

    def boot(self, label: str) -> Host:
        """A new host: it has an empty disk and a name that no other had. Its address is new too, unless others know the old one."""
        number = next(self._numbers)
        name = f"{label.partition('-')[0]}-{number:02d}{number * 7919 % 4096:03x}"
        address = FIXED.get(label) or f"{NET}.{10 + number}"
        return self._boot(label, name, address, self._disks.enter_context(disk(self._folder / "disks" / name)))

    def _boot(self, label: str, name: str, address: str, its_disk: Path) -> Host:
        host = Host(self._network, label, name=name, address=address, disk=its_disk)
        with self._lock:
            self.hosts[label] = host
            self.names.append(name)
        return host

    def start(self, label: str) -> None:
        service, host = self._service(label), self.hosts[label]
        if service.prepare and not (host.disk / "prepared").exists():
            service.prepare(host)
            (host.disk / "prepared").touch()
        process = host.start(service.command, settings=service.settings, log=self._folder / f"{label}.log")
        with self._lock:
            self._running[label] = process

    def keep(self) -> None:
        """From now on, processes that end are started again."""
        self._keeper.start()

    def _keep(self) -> None:
        since: dict[str, float] = {}
        while not self._stop.wait(LOOK_SECONDS):
            with self._lock:
                for label, process in list(self._running.items()):
                    code = process.poll()
                    if code is None or (label in self._taken and process.pid not in self._asked):
                        since.pop(label, None)
                    elif label not in since:
                        since[label] = time.monotonic()
                        self._held(label)
                        self._ended(label, process, code)
                    elif time.monotonic() - since[label] > RESTART_SECONDS:
                        del since[label]
                        process.wait()
                        self.start(label)

    def _ended(self, label: str, process: Process, code: int) -> None:
        """Notes the process as a death, if no fault has ended it."""
        if process.pid in self._asked or (label.startswith("worker") and code == DIED_OF_POISON):
            return
        said = self.tail(label, SAID_LINES).splitlines()
        self.deaths.append({"at": time.time(), "process": label, "code": code, "said": [line[:300] for line in said]})

    def _held(self, label: str) -> None:
        self._on_held(label, f"{self.hosts[label].name}:{self._running[label].own_pid}")

    # --- faults

    @contextmanager
    def taking(self, role: str, place: int) -> Iterator[str]:
        """Reserves a host of the role that has no other fault, and waits for one. Gives its label."""
        deadline = time.monotonic() + FREE_SECONDS
        label = ""
        while not label:
            with self._lock:
                free = [each for each in self._running if each.partition("-")[0] == role and each not in self._taken]
                if free:
                    label = free[place % len(free)]
                    self._taken.add(label)
            if not label and (time.monotonic() > deadline or self._stop.wait(LOOK_SECONDS)):
                raise RuntimeError(f"each {role} has a fault already")
        try:
            yield label
        finally:
            with self._lock:
                self._taken.discard(label)

    def cut_off(self, label: str, seconds: float) -> int:
        """Returns how many frames were not delivered."""
        self._held(label)
        before = self._network.order("cut", label).get(f"cut {label}", 0)
        self._stop.wait(seconds)
        return self._network.order("mend", label).get(f"cut {label}", 0) - before

    def lose(self, label: str, seconds: float) -> str:
        """Ends the host without a word, and starts another one in its place. Returns the names of both."""
        was = self._power_off(label)
        self._stop.wait(seconds)
        host = self.boot(label)
        self.start(label)
        self._on_moved(label)
        return f"{was.name}, then {host.name}"

    def reboot(self, label: str, seconds: float) -> str:
        """Ends the host without a word, and starts it again with its disk, name and address."""
        was = self._power_off(label)
        self._stop.wait(seconds)
        self._boot(label, was.name, was.address, was.disk)
        self.start(label)
        return was.name

    def _power_off(self, label: str) -> Host:
        with self._lock:
            host, process = self.hosts[label], self._running[label]
            self._held(label)
        host.power_off()
        process.wait()
        return host

    def kill(self, label: str) -> None:
        process = self._running[label]
        self._asked.add(process.pid)
        process.signal(signal.SIGKILL)

    def stop(self, label: str) -> None:
        """Sends SIGTERM to the process, waits for its end, and records how it ended."""
        process = self._running[label]
        self._asked.add(process.pid)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(END_SECONDS)
        if code is None:
            process.signal(signal.SIGKILL)
        seconds = time.monotonic() - began
        age = round(began - process.since, 2)
        self.stops.append({"process": label, "at": time.time() - seconds, "age": age, "seconds": round(seconds, 2), "code": code})

    # --- the end

    def tail(self, label: str, lines: int = 15) -> str:
        log = self._folder / f"{label}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def close(self) -> None:
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for host in self.hosts.values():
            host.power_off()
        for process in self._running.values():
            process.wait()
        self._disks.close()
