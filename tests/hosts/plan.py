"""Makes the plan of a seed: the load of the torture, and what happens to whole hosts."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.torture.plan import BLOCKED_EACH, POISONS, Plan
from tests.torture.planned_faults import Fault
from tests.torture.planned_jobs import Job, plan_jobs

LOADS = 2  #: how many loads of a short torture the long form has
LASTING = {False: 270.0, True: 34.0}  #: seconds of faults; the key: a short run
CALM_SECONDS = 8.0
EARLY = 0.3  #: factor for their times, so that much is open when hosts are lost
FEW = {4: 8, 40: 4}  #: the jobs of a short run: number of images → number of jobs

#: kind → how often, and how long. `cut off`: nothing comes through, and the host works on. `lose`: the host ends without a word, and
#: after that time another one with an empty disk and another name takes its place. `reboot`: it starts again with its disk.
#: `stop`, `kill`: the service's process alone.
LONG: dict[str, tuple[int, float]] = {
    "cut off postgres": (1, 20.0),
    "cut off redis": (1, 20.0),
    "cut off s3": (1, 20.0),
    "cut off worker": (2, 40.0),
    "cut off web": (2, 15.0),
    "cut off supervisor": (1, 40.0),
    "cut off proxy": (1, 8.0),
    "lose worker": (4, 4.0),
    "lose web": (3, 4.0),
    "lose supervisor": (2, 4.0),
    "lose proxy": (1, 2.0),
    "lose redis": (2, 3.0),
    "reboot postgres": (1, 3.0),
    "reboot s3": (1, 3.0),
    "stop worker": (1, 0.0),
    "stop web": (1, 0.0),
    "kill worker": (1, 0.0),
}
#: The faults of a short run, with their times in seconds.
SHORT = (
    Fault(at=2.0, kind="lose worker", seconds=3.0, place=0),
    Fault(at=3.0, kind="cut off worker", seconds=20.0, place=1),
    Fault(at=5.0, kind="lose web", seconds=3.0, place=0),
    Fault(at=8.0, kind="cut off postgres", seconds=5.0, place=0),
    Fault(at=14.0, kind="cut off s3", seconds=3.0, place=0),
    Fault(at=16.0, kind="lose supervisor", seconds=3.0, place=0),
    Fault(at=18.0, kind="lose redis", seconds=2.0, place=0),
    Fault(at=21.0, kind="cut off web", seconds=5.0, place=1),
    Fault(at=24.0, kind="lose proxy", seconds=1.0, place=0),
)


def make_plan(seed: int, *, short: bool) -> Plan:
    """Makes the plan. The same arguments give the same plan."""
    rng = random.Random(seed)
    seconds = LASTING[short]
    jobs, poison = _short_load(rng, seconds) if short else _loads(rng, seconds)
    ordinary = [number for job in jobs if job.engine == "gemini" and not job.missing for number in job.numbers]
    plain = [number for number in ordinary if number not in poison]
    blocked = frozenset(rng.sample(plain, len(plain) // BLOCKED_EACH))
    faults = SHORT if short else _faults(rng, seconds)
    return Plan(jobs=tuple(sorted(jobs, key=lambda job: job.at)), faults=faults, blocked=blocked, poison=poison, seconds=seconds)


def _short_load(rng: random.Random, seconds: float) -> tuple[list[Job], dict[int, bytes]]:
    """A few jobs of the torture's short load. Without poison, because each death of a worker lasts as long as a lease."""
    planned, _ = plan_jobs(rng, short=True, seconds=seconds, last=seconds - CALM_SECONDS)
    left = dict(FEW)
    jobs = []
    for job in sorted(planned, key=lambda job: not (job.missing or job.delete or job.streams or job.waits)):
        if job.engine == "gemini" and not job.cache and left.get(len(job.numbers), 0):
            left[len(job.numbers)] -= 1
            jobs.append(replace(job, at=EARLY * job.at))
    return jobs, {}


def _loads(rng: random.Random, seconds: float) -> tuple[list[Job], dict[int, bytes]]:
    jobs: list[Job] = []
    poison: dict[int, bytes] = {}
    for turn in range(LOADS):
        planned, hosts = plan_jobs(rng, short=True, seconds=seconds, last=seconds - CALM_SECONDS)
        up = 1000 * turn  # its numbers are below that
        own = [
            replace(
                job,
                name=f"{turn}-{job.name}",
                numbers=tuple(number + up for number in job.numbers),
                missing=frozenset(number + up for number in job.missing),
            )
            for job in planned
        ]
        if not turn:
            poison = {rng.choice(own[place].numbers): what for what, place in zip(reversed(POISONS), hosts, strict=True)}
        jobs += own
    return jobs, poison


def _faults(rng: random.Random, seconds: float) -> tuple[Fault, ...]:
    kinds = [kind for kind, (times, _) in LONG.items() for _ in range(times)]
    rng.shuffle(kinds)
    kinds.sort(key=lambda kind: LONG[kind][1] < 30)  # the longest ones begin first, so that none outlasts the others
    first, end = 3.0, seconds - 30.0
    return tuple(
        Fault(
            at=round(first + place / len(kinds) * (end - first) + rng.uniform(-2, 2), 3),
            kind=kind,
            seconds=LONG[kind][1],
            place=rng.randrange(100),
        )
        for place, kind in enumerate(kinds)
    )
