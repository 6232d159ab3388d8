"""Checks that credits are conserved. The supervisor runs these checks too, because they read only SQL."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, not_, or_, select

from storage.books.findings import Checked, Tally
from storage.database import sum_of
from storage.schema import accounts_table, jobs_table, ledger_table

LEDGER, ROUNDS, HOLDS = "ledger", "rounds", "holds"


def ledger(connection: Connection) -> Checked:
    """Whether each account's credits are what its ledger rows add up to."""
    tally = Tally(LEDGER)
    tally.looked_at = connection.scalar(select(func.count()).select_from(accounts_table)) or 0
    for row in connection.execute(_accounts()):
        told = f"account {row.id}: available {row.available}, held {row.held}, charged {row.charged}"
        by_ledger = f"available {row.granted - row.open - row.spent}, held {row.open}, charged {row.spent}"
        tally.add(f"{told}; by the ledger: {by_ledger}")
    return tally.checked()


def rounds(connection: Connection) -> tuple[Checked, Checked]:
    """Whether each ended round is settled exactly once, and whether each held amount belongs to an open job.

    Returns the outcomes of the checks ROUNDS and HOLDS. They share a query, because it reads the whole ledger.
    """
    settled, held = Tally(ROUNDS), Tally(HOLDS)
    settled.looked_at = connection.scalar(select(func.count()).where(ledger_table.c.kind == "reserve")) or 0
    held.looked_at = connection.scalar(select(func.count()).where(jobs_table.c.finished_at.is_(None))) or 0
    for row in connection.execute(_rounds()):
        name = f"round {row.round} of job {row.job}"
        if row.charges or row.releases or not row.reserves:
            settled.add(f"{name}: reserved {row.reserved}, charged {row.charged}, released {row.released}")
        elif row.known is None:
            held.add(f"{name}: {row.reserved} credits are held, and there is no such job")
        else:
            held.add(f"{name}: {row.reserved} credits are held, and the round has ended")
    for row in connection.execute(_without_hold()):
        held.add(f"round {row.round} of job {row.id}: it is open, and holds nothing")
    return settled.checked(), held.checked()


@cache
def _accounts() -> Select[Any]:
    """The accounts whose credits differ from their ledger, with what the ledger says."""
    by_account = select(
        ledger_table.c.account,
        _amount("grant").label("granted"),
        (_amount("reserve") - _amount("charge") - _amount("release")).label("open"),
        _amount("charge").label("spent"),
    )
    sums = by_account.group_by(ledger_table.c.account).subquery().c
    granted, open_, spent = (func.coalesce(column, 0) for column in (sums.granted, sums.open, sums.spent))
    columns = accounts_table.c
    differs = or_(
        columns.available != granted - open_ - spent,
        columns.held != open_,
        columns.charged != spent,
        columns.available < 0,
        columns.held < 0,
    )
    return (
        select(
            columns.id,
            columns.available,
            columns.held,
            columns.charged,
            granted.label("granted"),
            open_.label("open"),
            spent.label("spent"),
        )
        .select_from(accounts_table.outerjoin(sums.account.table, sums.account == columns.id))
        .where(differs)
        .order_by(columns.id)
    )


def _amount(kind: str) -> ColumnElement[int]:
    return sum_of(case((ledger_table.c.kind == kind, ledger_table.c.amount), else_=0))


def _rows(kind: str) -> ColumnElement[int]:
    return func.count(case((ledger_table.c.kind == kind, 1)))


@cache
def _rounds() -> Select[Any]:
    """The rounds that are neither settled nor held by their open job."""
    rows = ledger_table.c
    names = ("reserve", "reserves", "reserved"), ("charge", "charges", "charged"), ("release", "releases", "released")
    counted = [_rows(kind).label(many) for kind, many, _ in names] + [_amount(kind).label(sum_) for kind, _, sum_ in names]
    each = select(rows.job, rows.round, *counted).where(rows.job.is_not(None)).group_by(rows.job, rows.round).subquery()
    of = each.c
    jobs = jobs_table.c
    settled = and_(of.reserves == 1, of.charges == 1, of.releases == 1, of.reserved == of.charged + of.released)
    untouched = and_(of.reserves == 1, of.charges == 0, of.releases == 0)
    open_ = and_(untouched, jobs.id.is_not(None), jobs.finished_at.is_(None), jobs.round == of.round)
    joined = each.outerjoin(jobs_table, jobs.id == of.job)
    # A condition on the columns of an outer join may be NULL, so `open_` is compared as a whole.
    wrong = and_(not_(settled), case((open_, 0), else_=1) == 1)
    columns = of.job, of.round, of.reserves, of.charges, of.releases, of.reserved, of.charged, of.released
    return select(*columns, jobs.id.label("known")).select_from(joined).where(wrong)


@cache
def _without_hold() -> Select[Any]:
    jobs, rows = jobs_table.c, ledger_table.c
    hold = select(rows.id).where(rows.job == jobs.id, rows.round == jobs.round, rows.kind == "reserve")
    return select(jobs.id, jobs.round).where(jobs.finished_at.is_(None), ~hold.exists())
