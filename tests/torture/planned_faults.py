"""Plans the faults of a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

CALM_SECONDS = 6.0  #: pause before the last faults
PAUSE_SECONDS = 19.0  #: longer than a lease of 15 s and the time to reclaim it
LASTING = {False: 420.0, True: 80.0}  #: seconds of faults; the key: a short run

#: family → kind → weight
FAULTS: dict[str, dict[str, int]] = {
    "process": {
        "kill worker": 7,
        "kill decoder": 5,
        "kill supervisor": 3,
        "kill web": 4,
        "deploy worker": 4,
        "deploy web": 2,
        "pause worker": 3,
        "away supervisor": 0,
    },
    "partition": {"partition worker": 2, "partition web": 2, "partition supervisor": 1},
    "disk": {"full database": 1, "full tmp": 1},
    "redis": {"flush redis": 5, "kill redis": 4, "stall redis": 3, "cut redis": 4, "full redis": 1, "outage redis": 0},
    "postgres": {
        "restart postgres": 4,
        "cut postgres": 3,
        "stall postgres": 2,
        "lose commits": 5,
        "refuse commits": 4,
        "outage postgres": 0,
    },
    "s3": {"unavailable s3": 3, "undeletable s3": 3, "slow s3": 2, "cut s3": 3, "full s3": 1, "outage s3": 0},
    "model": {
        "429 model": 3,
        "500 model": 3,
        "503 model": 3,
        "hang model": 2,
        "garbage model": 2,
        "missing model": 3,
        "doubled model": 2,
        "truncated model": 2,
        "cut model": 2,
        "outage model": 0,
    },
    "receiver": {"down receiver": 2, "refuse receiver": 2, "lost receiver": 3},
}
MIGRATION = "kill migration"  #: happens before the service starts
#: While these last, the service stands still. Then it needs a while to begin again.
STANDSTILLS = {"outage redis", "outage postgres", "outage s3", "outage model", "full database", "full scratch"}
BACK_SECONDS = 5.0
CALLED = ("s3", "model", "receiver")  #: families whose faults happen only to calls of the service
DISKS = {"full database", "full tmp", "full scratch"}  #: they need small file systems
#: What a run on SQLite has: its database, scratch and TMPDIR are folders.
EMBEDDED = ("kill worker", "kill decoder", "kill web", "deploy worker", "pause worker", "full database", "full scratch")
#: kind → how long it lasts, in a long and in a short run. All other kinds last 1.5 to 5 s.
SECONDS = {
    "pause worker": (PAUSE_SECONDS, PAUSE_SECONDS),
    "partition worker": (PAUSE_SECONDS, 8.0),
    "partition web": (10.0, 4.0),
    "partition supervisor": (10.0, 4.0),
    "away supervisor": (180.0, 10.0),
    "outage redis": (60.0, 5.0),
    "outage postgres": (60.0, 5.0),
    "outage s3": (60.0, 5.0),
    "outage model": (60.0, 5.0),
    "full database": (40.0, 5.0),
    "full scratch": (40.0, 5.0),
    "full tmp": (20.0, 5.0),
    "full redis": (20.0, 5.0),
    "full s3": (20.0, 5.0),
}
#: The kinds of a short run: those of the first list always, and of each family one more by chance.
SHORT_ALWAYS = (
    "kill worker",
    "kill decoder",
    "kill web",
    "deploy worker",
    "pause worker",
    "away supervisor",
    "partition worker",
    "full database",
    "full tmp",
    "full redis",
    "lose commits",
    "refuse commits",
    "full s3",
    "outage postgres",
)
SHORT_MORE = {"redis": 1, "postgres": 1, "s3": 1, "model": 3, "receiver": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    at: float  #: seconds from the start of the load; a negative time is before it
    kind: str
    seconds: float  #: duration, for kinds that last
    place: int  #: chooses one of several processes


#: The last faults of every plan, in seconds from the end. Running steps are handed back because of the 429s, and then all
#: messages are lost. This tests that the supervisor announces the steps again.
LAST = (Fault(at=-3.5, kind="429 model", seconds=3.5, place=0), Fault(at=-0.5, kind="flush redis", seconds=0, place=0))


def plan_faults(rng: random.Random, seconds: float, *, short: bool, processes_only: bool, disks: bool) -> tuple[Fault, ...]:
    kinds = _kinds(rng, short=short, processes_only=processes_only, disks=disks)
    rng.shuffle(kinds)
    first, end = 3.0, seconds - CALM_SECONDS
    kinds.sort(key=lambda kind: -1 if kind == "away supervisor" else 0)  # the longest one begins first
    slots = [first + place / len(kinds) * (end - 5.0 - first) for place in range(len(kinds))]
    _long_ones_early(kinds, slots, end, short=short)
    _after_the_absence(kinds, slots, short=short)
    if short:
        _one_worker_at_a_time(kinds)
        _receiver_late(kinds)
    else:
        _once_beside_outages(kinds, slots)
    faults = [
        Fault(
            at=round(slot, 3),
            kind=kind,
            seconds=SECONDS[kind][short] if kind in SECONDS else round(rng.uniform(1.5, 5), 3),
            place=rng.randrange(100),
        )
        for kind, slot in zip(kinds, slots, strict=True)
    ]
    if not processes_only:
        faults += [replace(fault, at=seconds + fault.at) for fault in LAST]
        faults.append(Fault(at=-1.0, kind=MIGRATION, seconds=0, place=0))
    return tuple(faults)


def _one_worker_at_a_time(kinds: list[str]) -> None:
    """Spreads the faults that take a worker away over a short run, because it has only two workers and little time."""
    taking = ("pause worker", "partition worker", "kill worker", "deploy worker")
    for turn, kind in enumerate(kind for kind in taking if kind in kinds):
        place, wanted = kinds.index(kind), 1 + turn * (len(kinds) - 2) // len(taking)
        kinds[place], kinds[wanted] = kinds[wanted], kinds[place]


def _receiver_late(kinds: list[str]) -> None:
    """Moves the receiver's faults to the second half of a short run, because few jobs end in the first half if the machine is slow."""
    late = range(len(kinds) // 2, len(kinds))
    movable = [
        place
        for place in reversed(late)
        if kinds[place].startswith(("kill", "flush", "cut", "lose", "refuse commits")) and "worker" not in kinds[place]
    ]
    for place, kind in enumerate(kinds):
        if kind in FAULTS["receiver"] and place not in late and movable:
            other = movable.pop(0)
            kinds[place], kinds[other] = kinds[other], kinds[place]


def _after_the_absence(kinds: list[str], slots: list[float], *, short: bool) -> None:
    """Moves the faults of a supervisor to a time when there is one."""
    if "away supervisor" not in kinds:
        return
    place = kinds.index("away supervisor")
    back = slots[place] + SECONDS["away supervisor"][short] + 10.0
    later = [other for other, slot in enumerate(slots) if slot > back and _lasts(kinds[other], short=short) <= 5.0]
    for other, kind in enumerate(kinds):
        if slots[place] < slots[other] < back and kind.endswith(" supervisor") and later:
            swapped = later.pop(0)
            kinds[other], kinds[swapped] = kinds[swapped], kinds[other]


def _once_beside_outages(kinds: list[str], slots: list[float]) -> None:
    """Moves a fault of each kind that needs calls of the service to a time in which the service works.

    While the database, Redis, S3 or the model is away for a minute, the others are not called, and their faults meet nothing.
    """
    away = [
        (slot, slot + SECONDS[kind][False] + BACK_SECONDS) for kind, slot in zip(kinds, slots, strict=True) if kind in STANDSTILLS
    ]
    beside = [place for place, slot in enumerate(slots) if not any(start <= slot < end for start, end in away)]
    needed = sorted(kind for family in CALLED for kind in FAULTS[family] if kind in kinds and kind not in SECONDS)
    missing = [kind for kind in needed if not any(kinds[place] == kind for place in beside)]
    movable = [place for place in beside if kinds[place] not in needed and kinds[place] not in SECONDS]
    for kind, place in zip(missing, movable, strict=False):
        other = kinds.index(kind)
        kinds[place], kinds[other] = kinds[other], kinds[place]


def _kinds(rng: random.Random, *, short: bool, processes_only: bool, disks: bool) -> list[str]:
    if processes_only:
        kinds = list(EMBEDDED)
        if not short:
            kinds += rng.choices([kind for kind in EMBEDDED if kind not in DISKS], k=40)
    elif short:
        kinds = list(SHORT_ALWAYS)
        for family, more in SHORT_MORE.items():
            kinds += rng.sample(sorted(set(FAULTS[family]) - set(kinds)), more)
    else:
        weights = {kind: weight for known in FAULTS.values() for kind, weight in known.items()}
        kinds = [*weights, *rng.choices(list(weights), list(weights.values()), k=100 - len(LAST) - 1 - len(weights))]
    return [kind for kind in kinds if disks or kind not in DISKS]


def _lasts(kind: str, *, short: bool) -> float:
    return 40.0 if kind == "hang model" else SECONDS.get(kind, (5.0, 5.0))[short]


def _long_ones_early(kinds: list[str], slots: list[float], end: float, *, short: bool) -> None:
    """Moves the long faults to the front, so that none still lasts at the last fault. Recovery is measured from that fault."""
    for place in range(len(kinds) - 1, -1, -1):
        if slots[place] + _lasts(kinds[place], short=short) <= end:
            continue
        for other in range(place):
            fits = slots[other] + _lasts(kinds[place], short=short) <= end
            if fits and slots[place] + _lasts(kinds[other], short=short) <= end:
                kinds[place], kinds[other] = kinds[other], kinds[place]
                break
