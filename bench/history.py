"""Compares a job's transactions in a database with a million finished jobs and in an empty one, on SQLite and on Postgres."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.progress import Progress
from sqlalchemy import Table, text

from bench.report import Row, at_most, print_report, spread
from pipeline.asking.ask import ChunkOutcome
from pipeline.finalize import conclude
from pipeline.stage import StagedChunk
from pipeline.types import Reply, Usage
from storage import gauges, schema
from storage.database import Database, migrate
from storage.job import accepting, chunk_work, chunks, closing, listing, upkeep, views
from storage.job.outcome import job_outcome
from storage.queue import ringing, steps
from storage.queue.steps import Lease
from testbed import job_of, new_account, postgres, staged_images

AT_ONCE = 100_000
JOBS = 200  #: jobs in each database; the two databases take turns


class Side:
    """One of the two databases, with an account."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        migrate(self.database)
        self.account = new_account(self.database, 10**9)

    def job(self) -> str:
        """Runs the transactions of a job of one image, from accept to cleanup, except those for API keys and waiters."""
        database = self.database
        new = job_of(self.account, waited=True)
        with database.write() as connection:
            accepting.accept(connection, new, max_open=1000, max_scratch=10**12)
            (ring,) = ringing.to_ring(connection, beside=new.id)
        with database.write() as connection:
            lease = steps.claim(connection, ring.step, owner="bench", lease_ms=60_000)
        assert lease
        chunk = StagedChunk(staged=staged_images(0, 1), received={0: 3}, stored=3)
        lease = self._end(lease, lambda connection, lease: chunks.record_staged(connection, lease, key="key", chunk=chunk))
        outcome = ChunkOutcome(replies=(Reply(indexes=(0,), text="text", result=None),), usage=Usage(model_calls=1))
        lease = self._end(lease, lambda connection, lease: chunks.record_outcome(connection, lease, outcome, last=True))
        with database.read() as connection:
            found = job_outcome(connection, new.id)
        verdict = conclude(found, found.replies)
        lease = self._end(lease, lambda connection, lease: closing.finish_job(connection, lease, verdict))
        with database.write() as connection:
            steps.finish(connection, lease)
            ringing.to_ring(connection, beside=new.id)
        with database.read() as connection:
            assert views.job_view(connection, new.id, self.account)
            views.result_view(connection, new.id)
        return new.id

    def _end(self, lease: Lease, commit: Callable[..., list[int]]) -> Lease:
        """Commits the end of a step and claims the next step, as workers/run.py does."""
        with self.database.read() as connection:
            chunk_work.work_of(connection, lease)
        with self.database.write() as connection:
            (step,) = commit(connection, lease)
            follows = steps.claim(connection, step, owner="bench", lease_ms=60_000, after=lease)
        assert follows
        return follows

    def tick(self) -> None:
        """Runs the queries that the supervisor runs each second."""
        with self.database.write() as connection:
            steps.reclaim_expired(connection)
            upkeep.finalize_stranded(connection)
            ringing.forget_rings(connection)
            ringing.to_ring(connection)
        with self.database.read() as connection:
            upkeep.overdue(connection)

    def look(self) -> None:
        """Reads the newest page of jobs and the gauges of /metrics."""
        with self.database.read() as connection:
            listing.jobs_page(connection, self.account, limit=20)
            gauges.gauges(connection)

    def fill(self, count: int, progress: Progress) -> None:
        """Inserts `count` copies of one finished job."""
        template = self.job()
        task = progress.add_task(self.database.engine.dialect.name, total=count)
        for first in range(0, count, AT_ONCE):
            last = min(first + AT_ONCE, count)
            with self.database.write() as connection:
                for table in (
                    schema.jobs_table,
                    schema.images_table,
                    schema.chunks_table,
                    schema.steps_table,
                    schema.ledger_table,
                ):
                    connection.execute(text(_copy(table)), {"first": first, "last": last - 1, "template": template})
            progress.advance(task, last - first)
        if self.database.engine.dialect.name == "postgresql":  # autovacuum would do this over time
            with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))


def _copy(table: Table) -> str:
    job = "id" if table is schema.jobs_table else "job"
    columns = [column.name for column in table.columns if column.name != "id" or table is schema.jobs_table]
    values = [
        "'job_past_' || n.i" if name == job else "created_at - n.i" if name == "created_at" else f'"{name}"' for name in columns
    ]
    names = ", ".join(f'"{name}"' for name in columns)
    series = "WITH RECURSIVE n(i) AS (SELECT CAST(:first AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
    return f"{series} INSERT INTO {table.name} ({names}) SELECT {', '.join(values)} FROM {table.name}, n WHERE {job} = :template"


def ratios(full: Side, empty: Side, run: str) -> tuple[list[float], float]:
    """The ratio of the medians, full to empty, for each fifth of the run, and the median milliseconds in the full database."""
    taken: dict[str, list[float]] = {"full": [], "empty": []}
    for number in range(JOBS + 20):
        for name, side in (("full", full), ("empty", empty)):
            started = time.perf_counter()
            getattr(side, run)()
            if number >= 20:
                taken[name].append((time.perf_counter() - started) * 1000)
    part = JOBS // 5
    parts = [slice(first, first + part) for first in range(0, JOBS, part)]
    found = [statistics.median(taken["full"][part]) / statistics.median(taken["empty"][part]) for part in parts]
    return found, statistics.median(taken["full"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="finished jobs in the full database")
    count = parser.parse_args().jobs
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres())
        urls = {
            "SQLite": (f"sqlite:///{folder / 'full.db'}", f"sqlite:///{folder / 'empty.db'}"),
            "Postgres": (stack.enter_context(server.database()), stack.enter_context(server.database())),
        }
        for name, (full_url, empty_url) in urls.items():
            full, empty = Side(full_url), Side(empty_url)
            with Progress() as progress:
                full.fill(count, progress)
            for run, what in (
                ("job", "a job of one image"),
                ("tick", "a tick of the supervisor"),
                ("look", "a list, and the gauges"),
            ):
                found, milliseconds = ratios(full, empty, run)
                rows.append((f"{name}: {what} ({milliseconds:.1f} ms)", spread(found, "x"), at_most(1.1)))
            full.database.close()
            empty.database.close()
    print_report(f"With {count:,} finished jobs against none", rows)


if __name__ == "__main__":
    main()
