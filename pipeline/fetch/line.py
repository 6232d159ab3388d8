"""The batches that wait to start a fetch, by server, in the order of their turns."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from operator import attrgetter

from pipeline.fetch.batch import FetchBatch
from pipeline.fetch.hosts import Server
from pipeline.outbound.lookup_turns import Asker


class Line:
    """At each server, accounts take turns, and within an account its jobs. A job's batches go in the order in which they were made.

    A job so has its first batch whole as early as it can be, and the model is asked about it while the others are fetched. If its batches
    took turns, all of them would be whole late and at the same time. Each server has turns of its own, because a start at one server
    must not cost an account its turn at another one. Only the fetching thread uses it.
    """

    def __init__(self) -> None:
        # server → account → job → batches; accounts and jobs are in the order of turns
        self._servers: dict[Server, dict[str, dict[Asker, list[FetchBatch]]]] = {}

    def add(self, batch: FetchBatch) -> None:
        """Puts the batch in the line of each server that it has tasks for, if it is not there."""
        for server in batch.servers():
            self.add_at(server, batch)

    def add_at(self, server: Server, batch: FetchBatch) -> None:
        """Puts the batch in the line of this server, if it is not there."""
        line = self._servers.setdefault(server, {}).setdefault(batch.asker.account, {}).setdefault(batch.asker, [])
        if batch not in line:
            insort(line, batch, key=attrgetter("number"))

    def discard(self, batch: FetchBatch, server: Server) -> None:
        """Takes the batch out of the server's line, if it is there."""
        accounts = self._servers.get(server, {})
        jobs = accounts.get(batch.asker.account, {})
        line = jobs.get(batch.asker, [])
        if batch in line:
            line.remove(batch)
        if not line:
            jobs.pop(batch.asker, None)
        if not jobs:
            accounts.pop(batch.asker.account, None)
        if not accounts:
            self._servers.pop(server, None)

    def forget(self, batch: FetchBatch) -> None:
        """Takes the batch out of all lines."""
        for server in batch.servers():
            self.discard(batch, server)

    def servers(self) -> list[Server]:
        """The servers at which somebody waits. The one at which a fetch was started last comes last."""
        return list(self._servers)

    def next_at(self, server: Server, may_start: Callable[[FetchBatch], bool]) -> FetchBatch | None:
        """The first batch in the server's line that may start a fetch. The line may change meanwhile."""
        for jobs in list(self._servers.get(server, {}).values()):
            for line in list(jobs.values()):
                for batch in list(line):
                    if may_start(batch):
                        return batch
        return None

    def had_turn(self, batch: FetchBatch, server: Server) -> None:
        """Has the batch's account wait behind the others at this server, and its job behind the account's other jobs."""
        accounts = self._servers.get(server, {})
        jobs = accounts.pop(batch.asker.account, None)
        if jobs is None:
            return
        self._servers[server] = self._servers.pop(server)  # a batch's own limit is shared by its servers in turns
        accounts[batch.asker.account] = jobs
        if (line := jobs.pop(batch.asker, None)) is not None:
            jobs[batch.asker] = line
