"""Credits: what accounts have, hold and spent, and the row for each movement.

Money is conserved: `available + held + charged` of an account is the sum of its grants, and each round of a job has one
reserve, one charge and one release row, the latter two adding up to the first. The unique key on (job, round, kind)
makes a second charge impossible, whoever tries.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from storage.database import now_ms
from storage.schema import accounts, ledger


class InsufficientCredits(Exception):
    """The account has fewer credits than the job may cost."""

    def __init__(self, *, needed: int, available: int) -> None:
        super().__init__(f"{needed} credits are needed, {available} are available")
        self.needed = needed
        self.available = available


def grant(connection: Connection, account: str, amount: int) -> None:
    """Adds credits to an account."""
    if amount <= 0:
        raise ValueError(f"a grant must be positive, not {amount}")
    connection.execute(update(accounts).where(accounts.c.id == account).values(available=accounts.c.available + amount))
    _record(connection, account=account, job=None, round_=None, kind="grant", amount=amount)


def reserve(connection: Connection, *, account: str, job: str, round_: int, amount: int) -> None:
    """Holds credits for a round of a job. Locks the account's row. Raises InsufficientCredits."""
    changed = connection.execute(
        update(accounts)
        .where(accounts.c.id == account, accounts.c.available >= amount)
        .values(available=accounts.c.available - amount, held=accounts.c.held + amount)
    )
    if changed.rowcount == 0:
        available = connection.scalar(select(accounts.c.available).where(accounts.c.id == account)) or 0
        raise InsufficientCredits(needed=amount, available=available)
    _record(connection, account=account, job=job, round_=round_, kind="reserve", amount=amount)


def settle(connection: Connection, *, account: str, job: str, round_: int, charge: int) -> None:
    """Ends a round's reservation: `charge` credits of it are spent, the others are available again.

    Both rows are written even where one of them is zero. Raises ValueError if more than the reservation is charged.
    """
    reserved = connection.execute(
        select(ledger.c.amount).where(ledger.c.job == job, ledger.c.round == round_, ledger.c.kind == "reserve")
    ).scalar_one()
    if not 0 <= charge <= reserved:
        raise ValueError(f"job {job} holds {reserved} credits, {charge} can't be charged")
    _record(connection, account=account, job=job, round_=round_, kind="charge", amount=charge)
    _record(connection, account=account, job=job, round_=round_, kind="release", amount=reserved - charge)
    connection.execute(
        update(accounts)
        .where(accounts.c.id == account)
        .values(
            held=accounts.c.held - reserved,
            available=accounts.c.available + reserved - charge,
            charged=accounts.c.charged + charge,
        )
    )


def _record(connection: Connection, *, account: str, job: str | None, round_: int | None, kind: str, amount: int) -> None:
    connection.execute(
        insert(ledger).values(account=account, job=job, round=round_, kind=kind, amount=amount, created_at=now_ms())
    )
