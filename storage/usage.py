"""What an account has and what it spent, for its owner. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection, func, select

from storage.database import now_ms
from storage.schema import accounts, jobs, ledger

DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Credits of an account; together they are what was granted to it."""

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
    request_source: str | None  #: of its job, as long as that is known
    created_at: int  #: milliseconds since 1970


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """What was charged between two midnights, in UTC."""

    date: date
    jobs: int  #: that ended
    credits: int


def balance_of(connection: Connection, account: str) -> Balance:
    row = connection.execute(
        select(accounts.c.available, accounts.c.held, accounts.c.charged).where(accounts.c.id == account)
    ).one()
    return Balance(available=row.available, held=row.held, charged=row.charged)


def movements_of(connection: Connection, account: str, *, before: int | None, limit: int) -> Sequence[Movement]:
    """The account's rows of the ledger, newest first, from below the row `before` on."""
    query = (
        select(
            ledger.c.id,
            ledger.c.job,
            ledger.c.round,
            ledger.c.kind,
            ledger.c.amount,
            ledger.c.created_at,
            jobs.c.request_source,
        )
        .join(jobs, jobs.c.id == ledger.c.job, isouter=True)
        .where(ledger.c.account == account)
        .order_by(ledger.c.id.desc())
        .limit(limit)
    )
    rows = connection.execute(query.where(ledger.c.id < before) if before is not None else query)
    return [Movement(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def days_of(connection: Connection, account: str, *, count: int) -> Sequence[Day]:
    """The last `count` days, today first; those without an end of a job are left out."""
    day = ledger.c.created_at // DAY_MS
    query = (
        select(day.label("day"), func.count(ledger.c.job.distinct()).label("jobs"), func.sum(ledger.c.amount).label("credits"))
        .where(
            ledger.c.account == account,
            ledger.c.kind == "charge",
            ledger.c.created_at >= (now_ms() // DAY_MS - count + 1) * DAY_MS,
        )
        .group_by(day)
        .order_by(day.desc())
    )
    return [
        Day(date=datetime.fromtimestamp(row.day * DAY_MS / 1000, UTC).date(), jobs=row.jobs, credits=int(row.credits))
        for row in connection.execute(query)
    ]
