"""Injects the plan's faults into the service, each in its own thread, and records when each one began and ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from tests.torture import disks
from tests.torture.fleet import Fleet
from tests.torture.injector import Injector
from tests.torture.model import Model
from tests.torture.planned_faults import LAST, PAUSE_SECONDS, Fault
from tests.torture.receiver import Receiver
from tests.torture.servers import Postgres, Proxies, Valkey

MORE_SECONDS = 15.0  #: how much longer a fault lasts or is tried, if nothing has met it yet
LOOK_SECONDS = 0.2
OF_MODEL = {fault.kind for fault in LAST}


@dataclass(kw_only=True)
class Faults(Injector):
    fleet: Fleet
    model: Model
    receiver: Receiver
    proxies: Proxies
    valkey: Valkey
    postgres: Postgres | None
    disks: Mapping[str, Path]  #: database, scratch and tmp, where they are small
    _turns: dict[int, threading.Lock] = field(default_factory=dict)  # of the model and of the receiver
    _recovers_at: float = float("inf")  # by time.monotonic(): when the last faults begin, from which recovery is measured

    def start(self, faults: tuple[Fault, ...]) -> None:
        self._recovers_at = time.monotonic() + min((fault.at for fault in faults if self._exact(fault)), default=float("inf"))
        super().start(faults)

    def _act(self, fault: Fault) -> tuple[str, int]:
        """Injects the fault until it is over. Returns what it met, and how often."""
        verb, _, place = fault.kind.partition(" ")
        match verb, place:
            case "kill", "redis":
                self.valkey.kill()
                self._stop.wait(min(fault.seconds, 2.0))
                self.valkey.start()
                return place, 1
            case "flush", _:
                with suppress(RedisError), self.valkey.client() as client:
                    client.flushall()
                return place, 1
            case "restart", _:
                if self.postgres:
                    self.postgres.restart()
                return place, 1
            case "full", "redis":
                return self._full_redis(fault.seconds)
            case "full", _ if place in self.disks:
                return self._full_disk(self.disks[place], fault.seconds)
            case "away", role:
                found = self.fleet.away(role, fault.seconds)
                return found, bool(found)
            case "partition", role:
                return self._partition(role, fault)
            case (("kill" | "deploy" | "pause"), _):
                return self._to_process(verb, place, fault.place)
            case _:
                return self._to_part(verb, place, fault)

    def _to_process(self, verb: str, place: str, number: int) -> tuple[str, int]:
        """Tries until a process is there that can be killed, stopped or paused."""
        acts: dict[str, Callable[[], str]] = {
            "kill": lambda: self.fleet.kill_decoder(number) if place == "decoder" else self.fleet.kill(place, number),
            "deploy": lambda: self.fleet.deploy(place, number),
            "pause": lambda: self.fleet.pause(place, number),
        }
        more = MORE_SECONDS + (PAUSE_SECONDS if place == "worker" else 0)  # all workers may be paused
        deadline = min(time.monotonic() + more, self._recovers_at)
        while not (found := acts[verb]()) and time.monotonic() < deadline and not self._stop.wait(LOOK_SECONDS):
            continue
        return found or "nobody was there", bool(found)

    def _to_part(self, verb: str, place: str, fault: Fault) -> tuple[str, int]:
        lasts = fault not in self._exact(fault)
        if place == "receiver" and verb in {"down", "lost"}:
            return self._while_set(self.receiver, verb, "up", lambda: self.receiver.hits, fault, more=lasts)
        if place == "model" and verb not in {"cut", "outage"}:
            return self._while_set(self.model, verb, "", lambda: self.model.hits[verb], fault, more=lasts)
        if verb == "cut":
            return self._cut(place)
        mode = {"outage": "refuse", "lose": "lose commits", "refuse": "refuse"}.get(verb, verb)
        scope = place
        if place == "commits":
            mode, scope = f"{verb} commits", "postgres"
        before = self.proxies.hits(scope)
        self.proxies.become(scope, mode)
        try:
            self._last(fault.seconds, lambda: self.proxies.hits(scope) > before, more=lasts)
        finally:
            self.proxies.become(scope, "pass")
        return place, self.proxies.hits(scope) - before

    def _cut(self, place: str) -> tuple[str, int]:
        """Resets the part's connections. If it has none now, it tries again."""
        before = self.proxies.hits(place)
        deadline = time.monotonic() + MORE_SECONDS
        while True:
            self.proxies.become(place, "cut")
            hits = self.proxies.hits(place) - before
            if hits or time.monotonic() > deadline or self._stop.wait(LOOK_SECONDS):
                return place, hits

    def _exact(self, fault: Fault) -> list[Fault]:
        """The last faults of the plan end at their time, because recovery is measured from then on."""
        return [fault] if fault.kind in OF_MODEL and fault.seconds == LAST[0].seconds else []

    def _while_set(
        self, part: Any, mode: str, normal: str, hits: Callable[[], int], fault: Fault, *, more: bool
    ) -> tuple[str, int]:
        with self._turn(part, waits=more):
            if more and time.monotonic() + fault.seconds > self._recovers_at:
                return "it was too late", 0
            before = hits()
            part.mode = mode
            try:
                self._last(fault.seconds, lambda: hits() > before, more=more)
            finally:
                if part.mode == mode:  # otherwise a later fault of this part has begun
                    part.mode = normal
            return mode, hits() - before

    @contextmanager
    def _turn(self, part: Any, *, waits: bool) -> Iterator[None]:
        """Has the faults of a part follow each other, because a later one ends an earlier one, which then may have met nothing."""
        lock = self._turns.setdefault(id(part), threading.Lock())
        taken = waits and lock.acquire(timeout=max(min(MORE_SECONDS, self._recovers_at - time.monotonic()), 0.0))
        try:
            yield
        finally:
            if taken:
                lock.release()

    def _last(self, seconds: float, met: Callable[[], bool], *, more: bool = True) -> None:
        self._stop.wait(seconds)
        deadline = min(time.monotonic() + MORE_SECONDS, self._recovers_at) if more else 0.0
        while not met() and time.monotonic() < deadline and not self._stop.wait(LOOK_SECONDS):
            continue

    def _partition(self, role: str, fault: Fault) -> tuple[str, int]:
        """Cuts one process off from the database, Redis, S3 and its models. Nothing is closed."""
        with self.fleet.holding(role, fault.place) as name:
            if not name:
                return "nobody was free", 0
            before = self.proxies.hits(name)
            self.proxies.become(name, "stall")
            try:
                self._last(fault.seconds, lambda: self.proxies.hits(name) > before)
            finally:
                self.proxies.become(name, "pass")
            return name, self.proxies.hits(name) - before

    def _full_disk(self, disk: Path, seconds: float) -> tuple[str, int]:
        """Keeps the disk full: what the service frees meanwhile is taken too."""
        hits = 0
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline and not self._stop.is_set():
                disks.fill(disk)
                hits += disks.left(disk) < disks.MB
                self._stop.wait(LOOK_SECONDS)
        finally:
            disks.empty(disk)
        return disk.name, hits

    def _full_redis(self, seconds: float) -> tuple[str, int]:
        hits = 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.is_set():
            with suppress(RedisError), self.valkey.client() as client:  # again and again, because it may be restarted
                client.config_set("maxmemory", 1)
                hits += 1
            self._stop.wait(LOOK_SECONDS)
        with suppress(RedisError), self.valkey.client() as client:
            client.config_set("maxmemory", 0)
        return "redis", hits
