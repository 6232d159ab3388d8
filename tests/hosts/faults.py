"""Does to whole hosts what the plan says, each fault in its own thread, and records when each one began and ended."""

from __future__ import annotations

from dataclasses import dataclass

from tests.hosts.fleet import Fleet
from tests.torture.injector import Injector
from tests.torture.planned_faults import Fault


@dataclass(kw_only=True)
class Faults(Injector):
    fleet: Fleet

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
