"""Which steps are announced to the workers, and when: of each account only so many at a time.

A ring may be lost: it is a hint, and what is due is rung again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from pipeline.types import StepState
from storage.database import now_ms
from storage.queue.steps import free
from storage.schema import OPEN_STEP, TAKEN_STEP, UNRUNG_STEP, jobs_table, steps_table

#: Steps of one account that are rung or leased at a time. A job of 3000 images has 60 to 190 chunks: the
#: large jobs of one account leave room in the queue for everybody else's.
WINDOW = 64
RING_AGAIN_MS = 30_000  #: a step that was rung and not claimed is rung again after this, doubling
MOST_DOUBLINGS = 5
IN_HAND_MS = 2_000


@dataclass(frozen=True, slots=True)
class Ring:
    """A step to be announced."""

    step: int
    waited: bool  #: somebody holds a connection for its job


def to_ring(connection: Connection, *, beside: str | None = None, limit: int = 500) -> list[Ring]:
    """Marks due steps as rung and names them: of each account as many as its window leaves room for.

    `beside`: only those of the account that owns this job, and only those that were not rung yet.

    Else also, whatever its account has under way, what was rung and not claimed: after 30 s, then after twice that, up to
    16 minutes. Its message may be lost, or just wait in a long queue.
    """
    if beside is not None:
        accounts = connection.scalars(_account_statement(), {"job": beside}).all()
        due = []
    else:
        accounts = _accounts_with_room(connection)
        due = [Ring(row.id, row.priority == 0) for row in connection.execute(_rung_long_ago(), {"most": limit})]
    for account in accounts:
        due += _in_the_window(connection, account)
    due = sorted(due, key=lambda ring: (not ring.waited, ring.step))[:limit]
    if not due:
        return []
    rung: set[int] = set(connection.scalars(_ring_statement(), {"ids": [ring.step for ring in due]}))
    return [ring for ring in due if ring.step in rung]


def _accounts_with_room(connection: Connection) -> list[str]:
    """Those that have a due step that was not rung, and whose window has a place for it."""
    taken = {row.account: row.steps for row in connection.execute(_taken_statement())}
    unrung = connection.execute(_unrung_by_account()).all()
    return [row.account for row in unrung if row.first == 0 or taken.get(row.account, 0) < WINDOW]


def _in_the_window(connection: Connection, account: str) -> list[Ring]:
    """The account's due steps that were not rung, as many as its window has places for.

    Those that somebody waits for have the first places, past what is leased or was rung for others.
    """
    rows = connection.execute(_unrung_statement(), {"account": account}).all()
    if not rows:
        return []
    waited = [row.id for row in rows if row.priority == 0]
    others = [row.id for row in rows if row.priority != 0]
    left = max(WINDOW - rows[0].waited_taken, 0)
    left_for_others = max(left - len(waited) - rows[0].others_taken, 0)
    return [Ring(step, waited=True) for step in waited[:left]] + [Ring(step, waited=False) for step in others[:left_for_others]]


def forget_ring(connection: Connection, step: int) -> None:
    """Has the step rung anew: its message came to a process that takes no more."""
    connection.execute(
        update(steps_table)
        .where(free(steps_table.c.id == step, steps_table.c.state == StepState.READY.value))
        .values(rung_at=None)
    )


def forget_rings(connection: Connection) -> None:
    """Has every waiting step rung anew: the queue of messages was found empty, so theirs are lost.

    A ring of the last seconds is left: a worker may hold its message and be about to claim.
    """
    long_rung = free(text(OPEN_STEP), steps_table.c.state == StepState.READY.value, steps_table.c.rung_at < now_ms() - IN_HAND_MS)
    connection.execute(update(steps_table).where(long_rung).values(rung_at=None))


def _due() -> ColumnElement[bool]:
    """Ready, its time has come, and it was not rung lately."""
    rung_before = steps_table.c.rings - 1
    patience = literal(RING_AGAIN_MS, BigInteger).bitwise_lshift(
        case((rung_before > MOST_DOUBLINGS, MOST_DOUBLINGS), else_=rung_before)
    )
    return and_(
        steps_table.c.state == StepState.READY.value,
        steps_table.c.not_before <= now_ms(),
        or_(steps_table.c.rung_at.is_(None), steps_table.c.rung_at < now_ms() - patience),
    )


@cache
def _account_statement() -> Select[str]:
    return select(jobs_table.c.account).where(jobs_table.c.id == bindparam("job"))


@cache
def _unrung_by_account() -> Select[Any]:
    due = text(UNRUNG_STEP), steps_table.c.not_before <= now_ms()
    return (
        select(steps_table.c.account, func.min(steps_table.c.priority).label("first")).where(*due).group_by(steps_table.c.account)
    )


@cache
def _taken_statement() -> Select[Any]:
    taken = select(steps_table.c.account, func.count().label("steps")).where(text(f"({TAKEN_STEP})"))
    return taken.group_by(steps_table.c.account)


@cache
def _rung_long_ago() -> Select[Any]:
    again = (
        select(steps_table.c.id, steps_table.c.priority)
        .where(text(f"({TAKEN_STEP})"), _due())
        .order_by(steps_table.c.priority, steps_table.c.id)
    )
    return again.limit(bindparam("most"))


@cache
def _unrung_statement() -> Select[Any]:
    """An account's due steps that were not rung, in their order, and on each row how many of its places are taken."""
    same = steps_table.alias("same")
    taken = select(func.count()).select_from(same).where(same.c.account == bindparam("account"), text(f"({TAKEN_STEP})"))
    return (
        select(
            steps_table.c.id,
            steps_table.c.priority,
            taken.where(same.c.priority == 0).scalar_subquery().label("waited_taken"),
            taken.where(same.c.priority != 0).scalar_subquery().label("others_taken"),
        )
        .where(steps_table.c.account == bindparam("account"), text(UNRUNG_STEP), steps_table.c.not_before <= now_ms())
        .order_by(steps_table.c.priority, steps_table.c.id)
        .limit(WINDOW)
    )


@cache
def _ring_statement() -> ReturningUpdate[int]:
    still_due = free(steps_table.c.id.in_(bindparam("ids", expanding=True)), _due())
    return (
        update(steps_table).where(still_due).values(rung_at=now_ms(), rings=steps_table.c.rings + 1).returning(steps_table.c.id)
    )
