"""Helpers that write and read accounts, jobs and steps as rows, for tests of the queue without the rest of the service."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Row, event, select, update
from sqlalchemy.exc import OperationalError

from pipeline.plan import cut
from pipeline.ports import Scratch
from pipeline.stage import StagedChunk
from pipeline.types import Question, Staged
from storage import schema
from storage.account import accounts, ledger
from storage.database import Database, now_ms
from storage.job import accepting, chunks
from storage.queue import ringing, steps
from storage.queue.steps import Lease
from workers.run import ClaimedStep, work_on
from workers.wiring import WorkerParts
from workers.work_done import Commit


@contextmanager
def disk_fails(database: Database) -> Iterator[None]:
    """Makes each transaction fail at its begin while the block runs, as if SQLite could not read its file."""
    fault = sqlite3.OperationalError("disk I/O error")
    fault.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ

    def fail(*_: object) -> None:
        raise OperationalError("BEGIN", {}, fault)

    event.listen(database.engine, "begin", fail, insert=True)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", fail)


def new_account(database: Database, available: int = 100_000) -> str:
    with database.write() as connection:
        account = accounts.create_account(connection, "test")
        if available:
            ledger.grant(connection, account, available)
        return account


def job_of(account: str, *, images: int = 1, chunk: int = 1, waited: bool = False, **fields: Any) -> accepting.NewJob:
    """A job of URLs with one result for each image. Each chunk has `chunk` images."""
    return accepting.NewJob(
        id=accounts.random_id("job_", 24),
        account=account,
        waited=waited,
        input_method="url",
        question=Question(prompt="p", per_image=True),
        sources=[f"https://pictures.example/{index}" for index in range(images)],
        plan=cut(images, chunk),
        inputs={},
        scratch_bytes=0,
        request_source=None,
        engine="fake",
        model="fake-1",
        warnings=(),
        deadline_ms=3_600_000,
        ttl_ms=3_600_000,
        **fields,
    )


def new_job(database: Database, account: str, **options: Any) -> str:
    """Accepts a job without announcing its steps. Returns its id."""
    new = job_of(account, **options)
    with database.write() as connection:
        accepting.accept(connection, new, max_open=1000, max_scratch=10**12)
    return new.id


def step_ids(database: Database, job: str, kind: str = "stage") -> list[int]:
    query = select(schema.steps_table.c.id).where(schema.steps_table.c.job == job, schema.steps_table.c.kind == kind)
    with database.read() as connection:
        return list(connection.execute(query.order_by(schema.steps_table.c.id)).scalars())


def step_row(database: Database, step: int) -> Row[Any]:
    with database.read() as connection:
        return connection.execute(select(schema.steps_table).where(schema.steps_table.c.id == step)).one()


def job_row(database: Database, job: str) -> Row[Any]:
    with database.read() as connection:
        return connection.execute(select(schema.jobs_table).where(schema.jobs_table.c.id == job)).one()


def now(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(select(now_ms())).scalar_one())


def ring(database: Database, **options: Any) -> list[ringing.Ring]:
    with database.write() as connection:
        return ringing.to_ring(connection, **options)


def rung_now(database: Database, **options: Any) -> list[int]:
    """Announces the due steps. Returns their ids."""
    return [ring.step for ring in ring(database, **options)]


def set_steps(database: Database, *ids: int, **values: Any) -> None:
    """Changes these steps, or all steps if no id is given."""
    statement = update(schema.steps_table).values(**values)
    with database.write() as connection:
        connection.execute(statement.where(schema.steps_table.c.id.in_(ids)) if ids else statement)


def claim(database: Database, step: int, *, owner: str = "test", lease_ms: int = 60_000) -> Lease | None:
    with database.statements() as connection:
        return steps.claim(connection, step, owner=owner, lease_ms=lease_ms)


def claimed(database: Database, step: int, **options: Any) -> Lease:
    lease = claim(database, step, **options)
    assert lease is not None
    return lease


def stolen(database: Database, lease: Lease) -> Lease:
    """Expires the lease and claims the step for a second worker. Returns the second worker's lease."""
    # One transaction: a keeper could renew the lease between two.
    with database.write() as connection:
        connection.execute(update(schema.steps_table).where(schema.steps_table.c.id == lease.step).values(lease_until=0))
        assert steps.reclaim_expired(connection) == 1
    return claimed(database, lease.step, owner="thief")


def worked_on(parts: WorkerParts, lease: Lease) -> Commit:
    """Does the work of a step without committing it. Returns the commit. It does not claim the next step."""
    done = work_on(parts, ClaimedStep(lease=lease))
    if done.in_hand:
        done.in_hand.close()
    return done.commit


def staged_images(first: int, count: int) -> list[Staged]:
    return [
        Staged(index=index, mime="image/png", size=3, received=3, sha256="0" * 64, width=1, height=1)
        for index in range(first, first + count)
    ]


def extract_lease(database: Database, job: str, part: int) -> Lease:
    """Stages a chunk of one image and claims its extract step."""
    lease = claimed(database, step_ids(database, job)[part])
    with database.write() as connection:
        (step,) = chunks.record_staged(connection, lease, key=f"{job}/c{part}", chunk=StagedChunk(staged=staged_images(part, 1)))
    return claimed(database, step)


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with database.read() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for name, table in schema.metadata.tables.items()
        }


def end_state(database: Database, scratch: Scratch, job: str) -> dict[str, Any]:
    """Everything that a caller or an accountant can see of a job, and all keys in scratch, of all jobs."""
    columns, chunks, steps = schema.images_table.c, schema.chunks_table.c, schema.steps_table.c
    seen = (
        columns.index,
        columns.state,
        columns.code,
        columns.detail,
        columns.sha256,
        columns.bytes,
        columns.result,
        columns.evidence,
        columns.needs_review,
    )
    account, told, paid = schema.accounts_table.c, schema.deliveries_table.c, schema.ledger_table.c
    with database.read() as connection:

        def rows(*what: Any, of: Any, by: Any) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.execute(select(*what).where(of).order_by(by))]

        row = connection.execute(select(schema.jobs_table).where(schema.jobs_table.c.id == job)).one()
        return {
            "images": rows(*seen, of=columns.job == job, by=columns.index),
            "job": (row.status, row.result, row.error_code, row.error_message, row.credits, tuple(row.warnings)),
            "open chunks": rows(chunks.no, of=(chunks.job == job) & chunks.open, by=chunks.no),
            "open steps": rows(steps.kind, of=(steps.job == job) & steps.state.in_(("ready", "leased")), by=steps.id),
            "ledger": rows(paid.kind, paid.amount, of=paid.job == job, by=paid.id),
            "balance": rows(account.available, account.held, account.charged, of=account.id == row.account, by=account.id),
            "webhook": rows(told.event, told.state, of=told.job == job, by=told.id),
            "scratch": sorted(scratch.list("")),
        }


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in /dev/shm if that exists. It speeds up tests with many commits that do not test durability."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="extract-image-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until the condition holds. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        threading.Event().wait(0.005)


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """Runs each action in its own thread, all at the same moment. Returns what each one returned or raised."""
    gate = threading.Barrier(len(actions))
    given: list[Any] = [None] * len(actions)

    def run(place: int, action: Callable[[], Any]) -> None:
        gate.wait()
        try:
            given[place] = action()
        except Exception as error:
            given[place] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given
