"""Checks the sums that are kept so that nobody has to count, by counting."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, func, select

from storage.books.findings import Checked, Tally
from storage.database import sum_of
from storage.job import totals
from storage.schema import accounts_table, jobs_table

SUMS = "sums"


def sums(connection: Connection) -> Checked:
    """Whether open jobs, kept images and bytes are what a count finds. The supervisor mends all but the stored bytes."""
    tally = Tally(SUMS)
    tally.looked_at = connection.scalar(select(func.count()).select_from(accounts_table)) or 0
    wrong = totals.check(connection)
    for account in wrong.accounts:
        tally.add(f"account {account}: its open jobs or its kept images differ from a count")
    if wrong.scratch:
        tally.add(f"bytes in scratch: {wrong.scratch} more are noted than the jobs have")
    for row in connection.execute(_stored()):
        tally.add(f"account {row.id}: {row.stored_bytes} stored bytes are noted, its jobs have {row.counted}")
    return tally.checked()


@cache
def _stored() -> Select[Any]:
    accounts, jobs = accounts_table.c, jobs_table.c
    summed = select(jobs.account, sum_of(jobs.stored_bytes).label("bytes")).group_by(jobs.account).subquery()
    counted = func.coalesce(summed.c.bytes, 0)
    joined = accounts_table.outerjoin(summed, summed.c.account == accounts.id)
    shown = select(accounts.id, accounts.stored_bytes, counted.label("counted")).select_from(joined)
    return shown.where(accounts.stored_bytes != counted).order_by(accounts.id)
