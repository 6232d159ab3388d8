"""The batches that wait to start a fetch, in the order of their turns."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter

from pipeline.fetch.batch import FetchBatch
from pipeline.outbound.lookup_turns import Asker


class Line:
    """Accounts take turns, and within an account its jobs. A job's batches go in the order in which they were made.

    A job so has its first batch whole as early as it can be, and the model is asked about it while the others are fetched. If its batches took
    turns, all of them would be whole late and at the same time. Only the fetching thread uses it.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, dict[Asker, list[FetchBatch]]] = {}  #: accounts and their jobs, each in the order of turns

    def add(self, batch: FetchBatch) -> None:
        """Puts the batch at its place in its job's line, if it is not there."""
        line = self._accounts.setdefault(batch.asker.account, {}).setdefault(batch.asker, [])
        if batch not in line:
            insort(line, batch, key=attrgetter("number"))

    def discard(self, batch: FetchBatch) -> None:
        """Takes the batch out of the line, if it is there."""
        jobs = self._accounts.get(batch.asker.account, {})
        line = jobs.get(batch.asker, [])
        if batch in line:
            line.remove(batch)
        if not line:
            jobs.pop(batch.asker, None)
        if not jobs:
            self._accounts.pop(batch.asker.account, None)

    def in_turn(self) -> Iterator[FetchBatch]:
        """The batches as they wait now. The line may change meanwhile."""
        batches = [batch for jobs in self._accounts.values() for line in jobs.values() for batch in line]
        return iter(batches)

    def had_turn(self, batch: FetchBatch) -> None:
        """Has the batch's account wait behind the others, and its job behind the account's other jobs."""
        jobs = self._accounts.pop(batch.asker.account, None)
        if jobs is None:
            return
        self._accounts[batch.asker.account] = jobs
        if (line := jobs.pop(batch.asker, None)) is not None:
            jobs[batch.asker] = line
