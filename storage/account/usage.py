"""An account's balance and spending, for its owner. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection, func, select

from storage.database import now_ms
from storage.schema import accounts_table, jobs_table, ledger_table

DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Credits of an account. Their sum is what was granted to the account."""

    available: int
    held: int
    charged: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement:
    """A row of the ledger."""

    id: int
    job: str | None
    round: int | None
    kind: str  #: grant, reserve, charge, release
    amount: int  #: credits, never negative
    request_source: str | None  #: request source of the job; None after the job was deleted
    created_at: int  #: milliseconds since 1970


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """The charges of one day, in UTC."""

    date: date
    jobs: int  #: jobs that ended on that day
    credits: int  #: credits charged on that day
    nanodollars: int  #: cost of the model calls of these jobs, by the prices in the settings
    economy_nanodollars: int  #: the part of it that was paid for calls in the tier `economy`


def balance_of(connection: Connection, account: str) -> Balance:
    row = connection.execute(
        select(accounts_table.c.available, accounts_table.c.held, accounts_table.c.charged).where(accounts_table.c.id == account)
    ).one()
    return Balance(available=row.available, held=row.held, charged=row.charged)


def movements_of(connection: Connection, account: str, *, before: int | None, limit: int) -> Sequence[Movement]:
    """Up to `limit` ledger rows of the account, newest first. `before`: return only rows with a smaller id."""
    query = (
        select(
            ledger_table.c.id,
            ledger_table.c.job,
            ledger_table.c.round,
            ledger_table.c.kind,
            ledger_table.c.amount,
            ledger_table.c.created_at,
            jobs_table.c.request_source,
        )
        .join(jobs_table, jobs_table.c.id == ledger_table.c.job, isouter=True)
        .where(ledger_table.c.account == account)
        .order_by(ledger_table.c.id.desc())
        .limit(limit)
    )
    rows = connection.execute(query.where(ledger_table.c.id < before) if before is not None else query)
    return [Movement(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def days_of(connection: Connection, account: str, *, count: int) -> Sequence[Day]:
    """The last `count` days, today first. Days on which no job ended are left out."""
    day = ledger_table.c.created_at // DAY_MS
    query = (
        select(
            day.label("day"),
            func.count(ledger_table.c.job.distinct()).label("jobs"),
            func.sum(ledger_table.c.amount).label("credits"),
            func.sum(ledger_table.c.money).label("nanodollars"),
            func.sum(ledger_table.c.economy_money).label("economy_nanodollars"),
        )
        .where(
            ledger_table.c.account == account,
            ledger_table.c.kind == "charge",
            ledger_table.c.created_at >= (now_ms() // DAY_MS - count + 1) * DAY_MS,
        )
        .group_by(day)
        .order_by(day.desc())
    )
    return [
        Day(
            date=datetime.fromtimestamp(row.day * DAY_MS / 1000, UTC).date(),
            jobs=row.jobs,
            credits=int(row.credits),
            nanodollars=int(row.nanodollars),
            economy_nanodollars=int(row.economy_nanodollars),
        )
        for row in connection.execute(query)
    ]
