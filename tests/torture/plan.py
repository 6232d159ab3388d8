"""Makes the plan of a seed: the load, and the faults with their times. It is pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

WORKER_POISON = b"!worker"
#: The last bytes of a poisoned picture → the codes that it may fail with.
POISONS: dict[bytes, frozenset[str]] = {
    b"!crash": frozenset({"image_crashed_decoder"}),
    b"!memory": frozenset({"image_crashed_decoder", "image_too_complex"}),
    b"!hang": frozenset({"image_too_complex"}),
    WORKER_POISON: frozenset({"worker_crashed"}),
}
BLOCKED_EACH = 50  #: the model refuses one image out of this number
FORMS = ("text", "json", "records")
ACCOUNTS = 3
CALM_SECONDS = 6.0  #: pause before the last faults
PAUSE_SECONDS = 19.0  #: longer than a lease of 15 s and the time to reclaim it

#: family → kind → weight
FAULTS: dict[str, dict[str, int]] = {
    "process": {
        "kill worker": 7,
        "kill decoder": 6,
        "kill supervisor": 4,
        "kill web": 4,
        "deploy worker": 5,
        "pause worker": 4,
    },
    "redis": {"flush redis": 5, "kill redis": 5, "stall redis": 3, "cut redis": 4},
    "postgres": {"restart postgres": 4, "cut postgres": 4, "stall postgres": 2, "cut at commit": 7},
    "s3": {"unavailable s3": 4, "undeletable s3": 4, "slow s3": 3, "cut s3": 3},
    "model": {
        "429 model": 4,
        "500 model": 3,
        "503 model": 3,
        "hang model": 2,
        "garbage model": 3,
        "missing model": 3,
        "doubled model": 3,
        "truncated model": 3,
        "cut model": 2,
    },
    "receiver": {"down receiver": 2, "refuse receiver": 2, "lost receiver": 3},
}
LONG = {"pause worker", "hang model"}  #: kinds that block a step until its lease or its call has timed out
SHORT = {"process": 6, "redis": 2, "postgres": 2, "s3": 2, "model": 3, "receiver": 1}  #: number of kinds in a short run
CANCELLED = {False: 6, True: 2}  #: number of jobs with 40 images that are cancelled while they run; the key: a short run
LASTING = {False: 300.0, True: 45.0}  #: seconds of faults; the key: a short run


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One request."""

    name: str  #: part of its Idempotency-Key
    account: int
    at: float  #: seconds from the start of the load
    numbers: tuple[int, ...]  #: the numbers of its pictures, in order
    form: str
    by_url: bool
    webhook: bool
    waited: bool  #: the client holds the connection
    twice: str  #: when it is sent a second time: "" (never), "at once" or "later"
    cancel_after: float | None  #: cancel it this many seconds after its accept; None: never
    cancel_late: bool  #: send a cancel after its end; it must have no effect


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    at: float  #: seconds from the start of the load
    kind: str
    seconds: float  #: duration, for kinds that last
    place: int  #: chooses one of several processes


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]
    blocked: frozenset[int]
    poison: Mapping[int, bytes]  #: a picture's number → its last bytes
    seconds: float  #: duration of the faults


#: The last faults of every plan, in seconds from the end. Running steps are handed back because of the 429s, and then all
#: messages are lost. This tests that the supervisor announces the steps again.
LAST = (Fault(at=-3.5, kind="429 model", seconds=3.5, place=0), Fault(at=-0.5, kind="flush redis", seconds=0, place=0))


def make_plan(seed: int, *, short: bool, processes_only: bool) -> Plan:
    """Makes the plan. The same arguments give the same plan. `processes_only`: use only the faults of processes."""
    rng = random.Random(seed)
    seconds = LASTING[short]
    sizes = [4] * 20 + [40] * 9 + [200] if short else [4] * 150 + [40] * 40 + [200] * 9 + [3000]
    rng.shuffle(sizes)
    if not short:  # the largest job comes first, so that it runs during all others
        sizes.remove(3000)
        sizes.insert(0, 3000)
    for _ in range(ACCOUNTS):  # the last jobs: each account has one open when the faults in LAST happen
        sizes.remove(40)
    sizes += [40] * ACCOUNTS
    numbers = iter(range(10**6))
    jobs = [
        Job(
            name=f"job-{place}",
            account=(len(sizes) - place) % ACCOUNTS if place >= len(sizes) - ACCOUNTS else rng.randrange(ACCOUNTS),
            at=min(place / len(sizes) * seconds, seconds + LAST[0].at - 1.5),
            numbers=tuple(next(numbers) for _ in range(size)),
            form=rng.choice(FORMS),
            by_url=rng.random() < 0.66,
            webhook=rng.random() < 0.8,
            waited=size == 4 and rng.random() < 0.3,
            twice=rng.choice(("at once", "later")) if rng.random() < 0.3 else "",
            cancel_after=None,
            cancel_late=rng.random() < 0.15,
        )
        for place, size in enumerate(sizes)
    ]
    hosts = [place for place, job in enumerate(jobs[:-ACCOUNTS]) if len(job.numbers) == 40]
    rng.shuffle(hosts)
    for place in hosts[len(POISONS) :][: CANCELLED[short]]:
        jobs[place] = replace(jobs[place], cancel_after=round(rng.uniform(0.5, 2.5), 3))
    whole = [number for job in jobs for number in job.numbers]
    blocked = frozenset(rng.sample(whole, len(whole) // BLOCKED_EACH))
    poison = _poison(rng, jobs, hosts[: len(POISONS)], blocked)
    return Plan(
        jobs=tuple(sorted(jobs, key=lambda job: job.at)),
        faults=_faults(rng, seconds, short=short, processes_only=processes_only),
        blocked=blocked,
        poison=poison,
        seconds=seconds,
    )


def _poison(rng: random.Random, jobs: list[Job], hosts: list[int], blocked: frozenset[int]) -> dict[int, bytes]:
    """Chooses one picture for each kind of poison, each in another job with good pictures.

    These jobs come early, because the service needs time to isolate the poisoned picture.
    """
    poison = {}
    for turn, (what, place) in enumerate(zip(reversed(POISONS), hosts, strict=True)):
        poison[rng.choice([number for number in jobs[place].numbers if number not in blocked])] = what
        jobs[place] = replace(jobs[place], at=min(jobs[place].at, 1.0 + turn * 4))
    return poison


def _long_ones_early(rng: random.Random, kinds: list[str], *, before: int) -> None:
    """Moves the long faults to the front, so that none still lasts at the last fault. Recovery is measured from that fault."""
    for place in range(before, len(kinds)):
        if kinds[place] in LONG:
            other = rng.choice([early for early in range(before) if kinds[early] not in LONG])
            kinds[place], kinds[other] = kinds[other], kinds[place]


def _faults(rng: random.Random, seconds: float, *, short: bool, processes_only: bool) -> tuple[Fault, ...]:
    families = {"process": FAULTS["process"]} if processes_only else FAULTS
    if short:
        kinds = [kind for family, known in families.items() for kind in rng.sample(sorted(known), SHORT[family])]
    else:
        weights = {kind: weight for known in families.values() for kind, weight in known.items()}
        kinds = [*weights, *rng.choices(list(weights), list(weights.values()), k=100 - len(LAST) - len(weights))]
    rng.shuffle(kinds)
    first = 3.0
    last = () if processes_only else tuple(replace(fault, at=seconds + fault.at) for fault in LAST)
    end = seconds - CALM_SECONDS
    _long_ones_early(rng, kinds, before=int(len(kinds) * (1 - PAUSE_SECONDS / (end - first))))
    return (
        tuple(
            Fault(
                at=round(first + place / len(kinds) * (end - first), 3),
                kind=kind,
                seconds=PAUSE_SECONDS if kind == "pause worker" else round(rng.uniform(1.5, 5), 3),
                place=rng.randrange(100),
            )
            for place, kind in enumerate(kinds)
        )
        + last
    )
