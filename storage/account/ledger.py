"""Credits: the balance of each account, and a ledger row for each movement.

Credits are conserved: `available + held + charged` of an account equals the sum of its grants. Each ended round of a job has one
reserve, one charge and one release row, and charge plus release equals reserve. The unique key on (job, round, kind) makes a
second charge impossible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Connection, Insert, Select, Update, bindparam, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from storage.database import now_ms, sum_of
from storage.schema import accounts_table, ledger_table, scratch_totals_table


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
    connection.execute(
        update(accounts_table).where(accounts_table.c.id == account).values(available=accounts_table.c.available + amount)
    )
    connection.execute(_record(), {"account": account, "job": None, "round": None, "kind": "grant", "amount": amount})


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """The totals (storage/job/totals.py, storage/job/stored.py) that a reservation is compared with."""

    open_jobs: int  #: of the account, after the reservation
    kept_bytes: int  #: as above
    stored_bytes: int  #: as above
    scratch_bytes: int  #: in scratch, of all jobs that were committed before


def reserve(
    connection: Connection, *, account: str, job: str, round_: int, amount: int, kept_bytes: int = 0, stored_bytes: int = 0
) -> Totals:
    """Reserves credits for a round of a job, and counts the job as open and what it keeps. Locks the account's row.

    It is one statement, so that the row is locked for a short time. Raises InsufficientCredits.
    """
    more = {"kept": kept_bytes, "stored": stored_bytes}
    row = connection.execute(_hold(), {"of": account, "amount": amount, **more}).one_or_none()
    if row is None:
        available = connection.scalar(select(accounts_table.c.available).where(accounts_table.c.id == account)) or 0
        raise InsufficientCredits(needed=amount, available=available)
    connection.execute(_record(), {"account": account, "job": job, "round": round_, "kind": "reserve", "amount": amount})
    return Totals(
        open_jobs=row.open_jobs, kept_bytes=row.kept_bytes, stored_bytes=row.stored_bytes, scratch_bytes=row.scratch_bytes
    )


def settle(
    connection: Connection,
    *,
    account: str,
    job: str,
    round_: int,
    reserved: int,
    charge: int,
    money: int = 0,
    economy_money: int = 0,
    stored_bytes: int = 0,
) -> None:
    """Ends a round's reservation. It spends `charge` credits, makes the rest available again, and counts the job no more as open.

    `reserved`: what `of_reserve` finds. `money`: what the round's model calls cost, in billionths of a dollar. It is recorded beside
    the charge, for the account's usage. `economy_money`: the part of it that was paid for calls in the tier `economy`. `stored_bytes`:
    how many bytes more the job keeps in SQL since its size was counted last.

    It writes both ledger rows, even if one amount is zero. Raises ValueError if `charge` is more than the reservation.
    """
    if not 0 <= charge <= reserved:
        raise ValueError(f"job {job} holds {reserved} credits, {charge} can't be charged")
    release = reserved - charge
    amounts = {"charge": charge, "release": release, "money": money, "economy_money": economy_money}
    connection.execute(_settled(), {"of": account, "job_id": job, "in_round": round_, **amounts})
    connection.execute(_spend(), {"of": account, "charge": charge, "release": release, "stored": stored_bytes})


# Each statement is built once and cached, because building it takes longer than running it.


@cache
def _record() -> Insert:
    return insert(ledger_table).values(created_at=now_ms())


@cache
def _settled() -> Insert:
    """Records the charge and the release of a round."""
    same = {"account": bindparam("of"), "job": bindparam("job_id"), "round": bindparam("in_round"), "created_at": now_ms()}
    of_charge = {"money": _number("money"), "economy_money": _number("economy_money")}
    charged = {**same, "kind": "charge", "amount": _number("charge"), **of_charge}
    released = {**same, "kind": "release", "amount": _number("release"), "money": 0, "economy_money": 0}
    return insert(ledger_table).values([charged, released])


@cache
def of_reserve(*, round_: int | None = None) -> Select[int]:
    """Finds the credits that a round has reserved. Parameters: `job`, and `round` if it is not given."""
    of_round = ledger_table.c.job == bindparam("job"), ledger_table.c.round == (round_ or bindparam("round"))
    return select(ledger_table.c.amount).where(*of_round, ledger_table.c.kind == "reserve")


@cache
def _hold() -> ReturningUpdate[Any]:
    amount, columns = _number("amount"), accounts_table.c
    # The bytes in scratch are read here, to save a trip to the database.
    in_scratch = select(sum_of(scratch_totals_table.c.bytes)).scalar_subquery()
    enough = accounts_table.c.id == bindparam("of"), accounts_table.c.available >= amount
    return (
        update(accounts_table)
        .where(*enough)
        .values(
            available=columns.available - amount,
            held=columns.held + amount,
            open_jobs=columns.open_jobs + 1,
            kept_bytes=columns.kept_bytes + _number("kept"),
            stored_bytes=columns.stored_bytes + _number("stored"),
        )
        .returning(columns.open_jobs, columns.kept_bytes, columns.stored_bytes, in_scratch.label("scratch_bytes"))
    )


@cache
def _spend() -> Update:
    charge, release = _number("charge"), _number("release")
    return (
        update(accounts_table)
        .where(accounts_table.c.id == bindparam("of"))
        .values(
            held=accounts_table.c.held - charge - release,
            available=accounts_table.c.available + release,
            charged=accounts_table.c.charged + charge,
            open_jobs=accounts_table.c.open_jobs - 1,
            stored_bytes=accounts_table.c.stored_bytes + _number("stored"),
        )
    )


def _number(name: str) -> BindParameter[int]:
    return bindparam(name, type_=BigInteger)
