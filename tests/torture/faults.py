"""Injects the plan's faults into the service, each in its own thread, and records when each one began and ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from tests.torture.fleet import Fleet
from tests.torture.model import Model
from tests.torture.plan import Fault
from tests.torture.receiver import Receiver
from tests.torture.servers import Postgres, Proxies, Valkey

COMMITS = 4  #: commits that one "cut at commit" cuts


@dataclass(kw_only=True)
class Faults:
    fleet: Fleet
    model: Model
    receiver: Receiver
    proxies: Proxies
    valkey: Valkey
    postgres: Postgres | None
    done: list[dict[str, Any]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, faults: tuple[Fault, ...]) -> None:
        began = time.monotonic()
        for fault in faults:
            thread = threading.Thread(target=self._one, args=(fault, began + fault.at), name=fault.kind, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.01))

    def close(self) -> None:
        self._stop.set()
        self.wait(60)

    def _one(self, fault: Fault, at: float) -> None:
        if self._stop.wait(max(at - time.monotonic(), 0)):
            return
        began = time.time()
        try:
            what = self._act(fault)
        except Exception as error:
            what = f"not done: {error!r}"  # recorded, so that the run's report shows it
        self.done.append({"kind": fault.kind, "at": began, "ended": time.time(), "what": what})

    def _act(self, fault: Fault) -> str:
        verb, _, place = fault.kind.partition(" ")
        match verb, place:
            case "kill", "decoder":
                return self.fleet.kill_decoder(fault.place)
            case "kill", "redis":
                self.valkey.kill()
                self._stop.wait(min(fault.seconds, 2.0))
                self.valkey.start()
            case "kill", role:
                return self.fleet.kill(role, fault.place)
            case "deploy", role:
                return self.fleet.deploy(role, fault.place)
            case "pause", role:
                return self.fleet.pause(role, fault.place)
            case "flush", _:
                with suppress(RedisError), self.valkey.client() as client:
                    client.flushall()
            case "restart", _:
                if self.postgres:
                    self.postgres.restart()
            case "cut", "at commit":
                return self._cut_at_commits(fault.seconds)
            case "cut", _:
                self.proxies.become(place, "cut")
            case "down" | "lost", "receiver":
                self._during(
                    fault.seconds, lambda: setattr(self.receiver, "mode", verb), lambda: setattr(self.receiver, "mode", "up")
                )
            case _, "model":
                self._during(fault.seconds, lambda: setattr(self.model, "mode", verb), lambda: setattr(self.model, "mode", ""))
            case _, _:
                self._during(fault.seconds, lambda: self.proxies.become(place, verb), lambda: self.proxies.become(place, "pass"))
        return place

    def _during(self, seconds: float, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        begin()
        try:
            self._stop.wait(seconds)
        finally:
            end()

    def _cut_at_commits(self, seconds: float) -> str:
        for _ in range(COMMITS):
            self.proxies.become("postgres", "commit")
            self._stop.wait(seconds / COMMITS)
        self.proxies.become("postgres", "pass")
        return "postgres"
