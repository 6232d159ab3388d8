"""The money of jobs with `maxMoney`: what their calls have cost, and what the calls in flight may cost.

Before a call, its step holds the highest price that the call may have. The commit of the call's outcome replaces the held amount by
the real price. A held amount counts only while its step is leased, so a worker that dies holds nothing for longer than its lease.

A call is made beside others only if all of them together stay within the limit, whatever they cost. Near the limit that is never sure,
so the calls are then made one at a time, as long as the expected price of the next one fits. So a job may pass its limit by what one
call costs more than expected, however many workers it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, Update, bindparam, cast, func, select, update

from pipeline.models import CallPrice
from pipeline.ports import MoneySpent
from pipeline.types import StepState
from storage.job.locked import locked_row, locking
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import chunks_table, jobs_table, ledger_table, merges_table, steps_table


class MoneyHeld(Exception):
    """The call may not fit beside the calls in flight. It is made when they have ended, if the money still suffices."""


def hold(connection: Connection, lease: Lease, prices: Mapping[str, CallPrice]) -> list[str]:
    """Holds the price of the step's next call. Returns the models that the money suffices for, in the order of `prices`.

    `prices`: the call's price by model; the money must suffice for the first model. Raises MoneySpent, MoneyHeld, JobGone or LostLease.
    """
    job = locked_row(connection, _limit(), lease.job)
    held = {row.id: row.held_money for row in connection.execute(_held(), {"job": lease.job})}
    own = held.pop(lease.step, 0)  # of calls whose outcome is not committed yet
    others = sum(held.values())
    left = job.max_money - job.spent_money - own
    first, *_ = prices.values()
    if first.expected and first.expected > left:
        raise MoneySpent(f"{_dollars(max(left, 0))} of maxMoney are left, and this call may cost {_dollars(first.expected)}.")
    if not _fits(first, left, others):
        raise MoneyHeld
    able = [model for model, price in prices.items() if _fits(price, left, others)]
    steps.hold_money(connection, lease, own + max(prices[model].highest for model in able))
    return able


def _fits(price: CallPrice, left: int, others: int) -> bool:
    """Whether a call of that price may be made. `left`: of the limit; `others`: held by other calls in flight."""
    if not price.highest:
        return True
    return price.highest <= left - others if others else price.expected <= left


def spend(connection: Connection, lease: Lease, nanodollars: int) -> None:
    """Counts what a call has cost, and releases what the step holds. Raises LostLease. Call it before the step is ended."""
    connection.execute(_spend(), {"of": lease.job, "more": nanodollars})
    steps.hold_money(connection, lease, 0)


def _dollars(nanodollars: int) -> str:
    return f"${nanodollars / 1e9:.6f}"


@cache
def _limit() -> Select[Any]:
    return locking(jobs_table.c.max_money, jobs_table.c.spent_money)


@cache
def _held() -> Select[Any]:
    leased = steps_table.c.job == bindparam("job"), steps_table.c.state == StepState.LEASED.value
    return select(steps_table.c.id, steps_table.c.held_money).where(*leased)


@cache
def of_calls(*, economy: bool = False) -> Select[Any]:
    """Finds what a job's model calls have cost since its last round was settled, in billionths of a dollar. Parameter: `job`.

    `economy`: only the part that was paid for calls in the tier `economy`.
    """
    name, column = ("economy_nanodollars", ledger_table.c.economy_money) if economy else ("nanodollars", ledger_table.c.money)
    spent = [
        select(func.coalesce(func.sum(cast(table.c.usage[name].as_string(), BigInteger)), 0))
        .where(table.c.job == bindparam("job"))
        .scalar_subquery()
        for table in (chunks_table, merges_table)
    ]
    settled = select(func.coalesce(func.sum(column), 0)).where(ledger_table.c.job == bindparam("job"))
    return select(spent[0] + spent[1] - settled.scalar_subquery())


@cache
def _spend() -> Update:
    more = jobs_table.c.spent_money + bindparam("more", type_=BigInteger)
    return update(jobs_table).where(jobs_table.c.id == bindparam("of")).values(spent_money=more)
