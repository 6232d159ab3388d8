"""Whether the books of a database add up while no job is open."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import select

from storage import schema
from storage.database import Database


def faults(database: Database) -> list[str]:
    """What does not add up: each round has its three movements, and each account has what its ledger says. Empty: nothing."""
    ledger, accounts = schema.ledger_table.c, schema.accounts_table.c
    with database.read() as connection:
        rows = connection.execute(select(ledger.account, ledger.job, ledger.round, ledger.kind, ledger.amount)).all()
        balances = connection.execute(select(accounts.id, accounts.available, accounts.held, accounts.charged)).all()
        opened = connection.scalars(select(schema.jobs_table.c.id).where(schema.jobs_table.c.finished_at.is_(None))).all()
    found = [f"{job} is open" for job in opened]
    moved: dict[tuple[str, int], Counter[str]] = {}
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sums[row.account, row.kind] += row.amount
        if row.job is not None:
            moved.setdefault((row.job, row.round), Counter())[row.kind] += 1 if row.kind == "reserve" else 0
            moved[row.job, row.round][f"{row.kind} credits"] += row.amount
    for each, sides in moved.items():
        if sides["reserve"] != 1 or sides["reserve credits"] != sides["charge credits"] + sides["release credits"]:
            found.append(f"{each}: {dict(sides)}")
    for account in balances:
        granted, charged = sums[account.id, "grant"], sums[account.id, "charge"]
        if account.held or account.charged != charged or account.available != granted - charged:
            found.append(f"{tuple(account)}: {granted} granted, {charged} charged")
    return found
