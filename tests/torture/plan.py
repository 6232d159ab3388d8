"""Makes the plan of a seed: the load, and the faults with their times. It is pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tests.torture.planned_faults import LAST, LASTING, Fault, plan_faults
from tests.torture.planned_jobs import POISONS, Job, plan_jobs

__all__ = ["POISONS", "Fault", "Job", "Plan", "make_plan"]

BLOCKED_EACH = 50  #: the model refuses one image out of this number


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]
    blocked: frozenset[int]
    poison: Mapping[int, bytes]  #: a picture's number → its last bytes
    seconds: float  #: duration of the faults

    @property
    def kinds(self) -> dict[str, int]:
        """Kind of fault → how often it is planned."""
        return dict(Counter(fault.kind for fault in self.faults))


def make_plan(seed: int, *, short: bool, processes_only: bool, disks: bool) -> Plan:
    """Makes the plan. The same arguments give the same plan.

    `processes_only`: use only the faults of processes and of their disks. `disks`: small file systems can be mounted here.
    """
    rng = random.Random(seed)
    seconds = LASTING[short]
    jobs, hosts = plan_jobs(rng, short=short, seconds=seconds, last=seconds + LAST[0].at - 1.5)
    ordinary = [number for job in jobs if job.engine == "gemini" and not job.missing for number in job.numbers]
    blocked = frozenset(rng.sample(ordinary, len(ordinary) // BLOCKED_EACH))
    poison = {
        rng.choice([number for number in jobs[place].numbers if number not in blocked]): what
        for what, place in zip(reversed(POISONS), hosts, strict=True)
    }
    faults = plan_faults(rng, seconds, short=short, processes_only=processes_only, disks=disks)
    return Plan(jobs=tuple(sorted(jobs, key=lambda job: job.at)), faults=faults, blocked=blocked, poison=poison, seconds=seconds)
