"""Decides which waiting lookup of a name starts next, so that names whose server never answers delay only who asked for them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.shares import may_take

#: The part of all places that one job may hold, and the names that end alike of one account.
OF_JOB, OF_PARENT = 3 / 8, 3 / 16


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked for a name. Lookups take turns by account, and within an account by job."""

    account: str = ""
    job: str = ""


NOBODY = Asker()


class Lookup(Future[tuple[str, ...]]):
    """The lookup of one name, for everyone who waits for it."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.host = host
        self.port = port
        self.parent = parent_of(host)
        self.waiters = 0  #: how many callers wait for it
        self.started_for: Asker | None = None  #: whose turn it was; None: it has not started
        self.askers: dict[Asker, None] = {}  #: in whose queues it waits


def parent_of(host: str) -> str:
    """The last two labels of a name. One name server mostly answers for all names that share them."""
    return ".".join(host.rstrip(".").rsplit(".", 2)[-2:])


class LookupTurns:
    """The lookups that wait and the places of those that run. The caller holds a lock.

    Accounts share the places by the rule of pipeline/shares.py, so an account that is alone gets half of the places.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._of_job = max(int(places * OF_JOB), 1)
        self._of_parent = max(int(places * OF_PARENT), 1)
        self._accounts: Counter[str] = Counter()  # places that each account holds
        self._jobs: Counter[Asker] = Counter()
        self._parents: Counter[tuple[str, str]] = Counter()  # by account and parent domain
        # account → job → parent domain → lookups, each level in the order of turns
        self._waiting: dict[str, dict[Asker, dict[str, dict[Lookup, None]]]] = {}

    def add(self, lookup: Lookup, asker: Asker) -> None:
        """Has the lookup wait in the asker's queue too."""
        if asker not in lookup.askers:
            lookup.askers[asker] = None
            jobs = self._waiting.setdefault(asker.account, {})
            jobs.setdefault(asker, {}).setdefault(lookup.parent, {})[lookup] = None

    def start_next(self) -> Lookup | None:
        """Takes the lookup out of the queues whose turn it is. None if no lookup may start now."""
        for account, jobs in self._waiting.items():
            if not may_take(held=self._accounts[account], free=self._free):
                continue
            for asker, parents in jobs.items():
                if self._jobs[asker] >= self._of_job:
                    continue
                for parent, lookups in parents.items():
                    if self._parents[account, parent] < self._of_parent:
                        lookup = next(iter(lookups))
                        self._start(lookup, asker)
                        return lookup
        return None

    def _start(self, lookup: Lookup, asker: Asker) -> None:
        self.drop(lookup)
        lookup.started_for = asker
        self._count(lookup, asker, 1)
        # The account, the job and the parent domain go behind the others.
        if (jobs := self._waiting.pop(asker.account, None)) is not None:
            self._waiting[asker.account] = jobs
            if (parents := jobs.pop(asker, None)) is not None:
                jobs[asker] = parents
                if (lookups := parents.pop(lookup.parent, None)) is not None:
                    parents[lookup.parent] = lookups

    def ended(self, lookup: Lookup) -> None:
        """Frees the place of a lookup that had started."""
        if lookup.started_for is not None:
            self._count(lookup, lookup.started_for, -1)

    def drop(self, lookup: Lookup) -> None:
        """Takes a lookup that has not started out of all queues."""
        for asker in lookup.askers:
            jobs = self._waiting[asker.account]
            del jobs[asker][lookup.parent][lookup]
            if not jobs[asker][lookup.parent]:
                del jobs[asker][lookup.parent]
            if not jobs[asker]:
                del jobs[asker]
            if not jobs:
                del self._waiting[asker.account]
        lookup.askers.clear()

    def _count(self, lookup: Lookup, asker: Asker, more: int) -> None:
        self._free -= more
        parent = (asker.account, lookup.parent)
        self._accounts[asker.account] += more
        self._jobs[asker] += more
        self._parents[parent] += more
        if more < 0:
            self._accounts, self._jobs, self._parents = +self._accounts, +self._jobs, +self._parents
