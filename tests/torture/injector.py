"""Injects planned faults, each in its own thread, and records when each one began and ended."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from tests.torture.planned_faults import Fault


@dataclass(kw_only=True)
class Injector(ABC):
    """What the faults of processes and those of whole hosts have in common: when they begin, and what is recorded."""

    done: list[dict[str, Any]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, faults: tuple[Fault, ...]) -> None:
        began = time.monotonic()
        for fault in faults:
            if fault.at < 0:
                continue  # it happens before the load: see migrating.py
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

    @abstractmethod
    def _act(self, fault: Fault) -> tuple[str, int]:
        """Injects the fault until it is over. Returns what it met, and how often."""
