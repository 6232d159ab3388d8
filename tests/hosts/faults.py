"""Does to whole hosts what the plan says, each fault in its own thread, and records when each one began and ended."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.hosts.fleet import Fleet
from tests.torture.planned_faults import Fault


@dataclass(kw_only=True)
class Faults:
    fleet: Fleet
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
            what, hits = self._act(fault)
        except Exception as error:
            what, hits = f"not done: {error!r}", 0  # recorded, so that the run's report shows it
        self.done.append({"kind": fault.kind, "at": began, "ended": time.time(), "what": what, "hits": hits})

    def _act(self, fault: Fault) -> tuple[str, int]:
        """Injects the fault until it is over. Returns what it met, and how often."""
        verb, _, role = fault.kind.rpartition(" ")
        with self.fleet.taking(role, fault.place) as label:
            match verb:
                case "cut off":
                    return label, self.fleet.cut_off(label, fault.seconds)
                case "lose":
                    return f"{label}: {self.fleet.lose(label, fault.seconds)}", 1
                case "reboot":
                    return self.fleet.reboot(label, fault.seconds), 1
                case "stop":
                    self.fleet.stop(label)
                    return label, 1
                case _:
                    self.fleet.kill(label)
                    return label, 1
