"""Keeps the totals that accept compares with its limits, because counting all open jobs took 9 to 41 ms with 20,000 of them.

Each account has the number of its open jobs and the bytes of its kept images. The service has the bytes in scratch of all jobs. The
transaction that changes a job's row also changes the totals. `check` compares them with the rows, and `mend` counts them again.

All transactions change the bytes in scratch, so one row would make them wait for each other. The number is the sum of SHARDS rows, and
a job always uses the same one. A transaction changes its shard last, after the rows of the job, its steps and its account. So two
transactions can't each wait for a row of the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    Update,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from storage.database import sum_of
from storage.schema import SHARDS, accounts_table, jobs_table, scratch_totals_table


@dataclass(frozen=True, kw_only=True, slots=True)
class OfAccount:
    """The totals of an account."""

    open_jobs: int  #: jobs that have not ended
    kept_bytes: int  #: uploaded images that outlive their job: of jobs that have not ended, and of those that have


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """The totals that differ from the rows of the jobs."""

    accounts: Sequence[str]  #: the accounts whose totals differ
    scratch: int  #: bytes in scratch that were counted too many; negative: too few


def count_account(connection: Connection, account: str, *, open_jobs: int, kept_bytes: int = 0) -> OfAccount:
    """Adds to an account's totals and locks its row. Returns the totals after that."""
    row = connection.execute(_of_account(), {"of": account, "jobs": open_jobs, "kept": kept_bytes}).one()
    return OfAccount(open_jobs=row.open_jobs, kept_bytes=row.kept_bytes)


def count_scratch(connection: Connection, job: str, more: int) -> None:
    """Adds to the bytes in scratch. `more` may be negative. Nothing but the commit should follow in the transaction."""
    if more:
        connection.execute(_of_shard(), {"of": zlib.crc32(job.encode()) % SHARDS, "more": more})


def in_scratch(connection: Connection) -> int:
    """The bytes in scratch of open jobs, and of uploaded images that are kept for jobs that have ended."""
    return connection.execute(_in_scratch()).scalar_one()


def check(connection: Connection) -> Wrong:
    """Compares the totals with the rows. Each comparison is one statement, so it can't see half of a transaction."""
    counted = _counted_accounts().subquery()
    jobs, kept = func.coalesce(counted.c.jobs, 0), func.coalesce(counted.c.kept, 0)
    differs = or_(accounts_table.c.open_jobs != jobs, accounts_table.c.kept_bytes != kept)
    joined = accounts_table.outerjoin(counted, counted.c.account == accounts_table.c.id)
    accounts = connection.scalars(select(accounts_table.c.id).select_from(joined).where(differs).order_by(accounts_table.c.id))
    total = _in_scratch().scalar_subquery() - _counted_scratch().scalar_subquery()
    return Wrong(accounts=accounts.all(), scratch=connection.execute(select(total)).scalar_one())


def mend(connection: Connection, wrong: Wrong) -> None:
    """Counts these totals again.

    It locks a total before it counts. A transaction that has changed a job and not yet the total waits for the lock, and adds its
    change to what was counted without it.
    """
    counted = _counted_accounts().subquery()
    for account in wrong.accounts:
        connection.execute(select(accounts_table.c.id).where(accounts_table.c.id == account).with_for_update(key_share=True))
        row = connection.execute(select(counted).where(counted.c.account == account)).one_or_none()
        values = {"open_jobs": row.jobs if row else 0, "kept_bytes": row.kept if row else 0}
        connection.execute(update(accounts_table).where(accounts_table.c.id == account).values(**values))
    if wrong.scratch:
        shards = scratch_totals_table.c
        connection.execute(select(shards.shard).order_by(shards.shard).with_for_update())
        kept = connection.execute(select(sum_of(shards.bytes)).where(shards.shard > 0)).scalar_one()
        size = connection.execute(_counted_scratch()).scalar_one()
        connection.execute(update(scratch_totals_table).where(shards.shard == 0).values(bytes=size - kept))


# Each statement is built once and cached, because building it takes longer than running it.


@cache
def _of_account() -> ReturningUpdate[Any]:
    columns = accounts_table.c
    more = {
        "open_jobs": columns.open_jobs + bindparam("jobs", type_=BigInteger),
        "kept_bytes": columns.kept_bytes + bindparam("kept", type_=BigInteger),
    }
    changed = update(accounts_table).where(columns.id == bindparam("of")).values(**more)
    return changed.returning(columns.open_jobs, columns.kept_bytes)


@cache
def _of_shard() -> Update:
    columns = scratch_totals_table.c
    after = columns.bytes + bindparam("more", type_=BigInteger)
    return update(scratch_totals_table).where(columns.shard == bindparam("of")).values(bytes=after)


@cache
def _in_scratch() -> Select[int]:
    return select(sum_of(scratch_totals_table.c.bytes))


@cache
def _counted_accounts() -> Select[Any]:
    """The totals of each account that has an open job or kept images, from the rows of the jobs.

    It reads the open jobs and those with kept images one after the other, because SQLite uses no partial index for an OR.
    """
    columns = jobs_table.c
    to_keep = case((columns.keep_ms > 0, columns.input_bytes), else_=0)
    of_open = select(columns.account, literal(1).label("jobs"), to_keep.label("kept")).where(columns.finished_at.is_(None))
    of_kept = select(columns.account, literal(0), columns.input_bytes).where(columns.inputs_expire_at.is_not(None))
    each = union_all(of_open, of_kept).subquery().c
    return select(each.account, sum_of(each.jobs).label("jobs"), sum_of(each.kept).label("kept")).group_by(each.account)


@cache
def _counted_scratch() -> Select[Any]:
    columns = jobs_table.c
    of_open = select(sum_of(columns.scratch_bytes)).where(columns.finished_at.is_(None))
    of_kept = select(sum_of(columns.input_bytes)).where(columns.inputs_expire_at.is_not(None))
    return select(of_open.scalar_subquery() + of_kept.scalar_subquery())
