"""Plans the load of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

WORKER_POISON = b"!worker"
#: The last bytes of a poisoned picture → the codes that it may fail with.
POISONS: dict[bytes, frozenset[str]] = {
    b"!crash": frozenset({"image_crashed_decoder"}),
    b"!memory": frozenset({"image_crashed_decoder", "image_too_complex"}),
    b"!hang": frozenset({"image_too_complex"}),
    WORKER_POISON: frozenset({"worker_crashed"}),
}
FORMS = ("text", "json", "records")
ACCOUNTS = 3  #: the accounts whose promises are checked
CANCELLED = {False: 6, True: 2}  #: number of jobs with 40 images that are cancelled while they run; the key: a short run
DELETED = {False: 4, True: 1}  #: the same for jobs that are deleted while they run
#: engine → sizes of its jobs; the key: a short run
OTHERS = {
    False: {"openai": [4] * 12 + [40] * 2, "ocr": [3] * 3},
    True: {"openai": [4, 4], "ocr": [2]},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One request."""

    name: str  #: part of its Idempotency-Key and its metadata
    account: int
    at: float  #: seconds from the start of the load
    numbers: tuple[int, ...]  #: the numbers of its pictures, in order
    form: str
    engine: str = "gemini"
    sent: str = "url"  #: url, base64 or files
    keyed: bool = True  #: it has an Idempotency-Key
    webhook: bool = False
    waits: bool = False  #: the client holds the connection
    streams: bool = False  #: the client reads the events
    synthesize: bool = False
    cache: bool = False
    missing: frozenset[int] = frozenset()  #: numbers that can't be fetched before its retry
    twice: str = ""  #: when it is sent a second time: "" (never), "at once" or "later"
    cancel_after: float | None = None  #: cancel it this many seconds after its accept; None: never
    cancel_late: bool = False  #: send a cancel after its end; it must have no effect
    delete: str = ""  #: when it is deleted: "" (never), "running" or "ended"


def plan_jobs(rng: random.Random, *, short: bool, seconds: float, last: float) -> tuple[list[Job], list[int]]:
    """The jobs, and the places of those that get a poisoned picture. `last`: the time at which the last jobs are sent."""
    sizes = [4] * 20 + [40] * 9 + [200] if short else [4] * 150 + [40] * 40 + [200] * 9 + [3000]
    rng.shuffle(sizes)
    if not short:  # the largest job comes first, so that it runs during all others
        sizes.remove(3000)
        sizes.insert(0, 3000)
    for _ in range(ACCOUNTS):  # the last jobs: each account has one open when the last faults happen
        sizes.remove(40)
    sizes += [40] * ACCOUNTS
    numbers = iter(range(1, 10**6))
    jobs = []
    for place, size in enumerate(sizes):
        at_end = place >= len(sizes) - ACCOUNTS
        jobs.append(
            replace(
                _ordinary(rng, f"job-{place}", size, numbers, plain=at_end),
                account=(len(sizes) - place) % ACCOUNTS if at_end else rng.randrange(ACCOUNTS),
                at=min(place / len(sizes) * seconds, last),
            )
        )
    hosts = [place for place, job in enumerate(jobs[:-ACCOUNTS]) if len(job.numbers) == 40]
    rng.shuffle(hosts)
    poisoned, rest = hosts[: len(POISONS)], hosts[len(POISONS) :]
    for turn, place in enumerate(poisoned):  # early, because the service needs time to isolate the poisoned picture
        jobs[place] = replace(_plain(jobs[place]), at=min(jobs[place].at, 1.0 + turn * 4))
    small = [place for place, job in enumerate(jobs[:-ACCOUNTS]) if len(job.numbers) == 4]
    rng.shuffle(small)
    _with_every_manner(jobs, small, rest, rng, short=short)
    jobs += _other_engines(rng, numbers, seconds, short=short)
    return jobs, poisoned


def _plain(job: Job) -> Job:
    return replace(job, keyed=True, missing=frozenset(), delete="", cache=False, synthesize=False, streams=False)


def _ordinary(rng: random.Random, name: str, size: int, numbers: Iterator[int], *, plain: bool) -> Job:
    """A job of the common kinds. `plain`: it has none of the manners that make it take longer."""
    own = tuple(next(numbers) for _ in range(size))
    keyed = rng.random() < 0.75
    sent = rng.choices(("url", "base64", "files"), (6, 2, 2))[0] if size < 3000 else "url"
    form = rng.choice(FORMS)
    return Job(
        name=name,
        account=0,
        at=0,
        numbers=own,
        form=form,
        sent=sent,
        keyed=keyed,
        webhook=rng.random() < 0.8,
        waits=size == 4 and sent != "files" and rng.random() < 0.4,
        streams=not plain and rng.random() < 0.25,
        synthesize=not plain and size == 40 and form != "records" and rng.random() < 0.5,
        twice=rng.choice(("at once", "later")) if keyed and rng.random() < 0.4 else "",
        cancel_late=rng.random() < 0.15,
    )


def _with_every_manner(jobs: list[Job], small: list[int], large: list[int], rng: random.Random, *, short: bool) -> None:
    """Sets the rarer manners: cancels, deletes, retries, the cache, and one of each kind that chance may have left out."""
    factor = 1 if short else 6
    turn = iter(small)
    for _ in range(factor):
        for changes in (
            {"keyed": False, "twice": "", "waits": True, "sent": "base64"},
            {"sent": "files", "waits": False},
            {"streams": True},
        ):
            place = next(turn)
            jobs[place] = replace(jobs[place], **changes)
        place = next(turn)  # retried
        jobs[place] = replace(
            jobs[place],
            sent="url",
            waits=False,
            twice="",
            cancel_late=False,
            missing=frozenset(rng.sample(jobs[place].numbers, 2)),
        )
        place = next(turn)  # deleted after its end
        jobs[place] = replace(jobs[place], delete="ended", twice="", cancel_late=False, waits=False)
        first, second = sorted((next(turn), next(turn)), key=lambda place: jobs[place].at)  # the second finds the first's records
        jobs[first] = replace(jobs[first], cache=True, form="records", waits=False, twice="", at=1.0)
        jobs[second] = replace(
            jobs[second],
            cache=True,
            form="records",
            account=jobs[first].account,
            numbers=jobs[first].numbers,
            at=max(jobs[second].at, jobs[first].at + (25 if short else 60)),
        )
    for place in large[: CANCELLED[short]]:
        jobs[place] = replace(_plain(jobs[place]), cancel_after=round(rng.uniform(0.5, 2.5), 3))
    if short:
        jobs[-1] = replace(jobs[-1], synthesize=True, form="text")
    for place in small[-DELETED[short] :]:
        jobs[place] = replace(_plain(jobs[place]), delete="running", twice="", cancel_late=False, waits=False)


def _other_engines(rng: random.Random, numbers: Iterator[int], seconds: float, *, short: bool) -> list[Job]:
    return [
        Job(
            name=f"{engine}-{place}",
            account=rng.randrange(ACCOUNTS),
            at=round(2 + rng.random() * seconds * 0.7, 3),
            numbers=tuple(next(numbers) + 100_000 for _ in range(size)),
            form="records" if engine == "ocr" else rng.choice(FORMS),
            engine=engine,
            sent=rng.choice(("url", "base64")),
            webhook=rng.random() < 0.8,
        )
        for engine, sizes in OTHERS[short].items()
        for place, size in enumerate(sizes)
    ]
