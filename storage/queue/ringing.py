"""Chooses which steps are announced ("rung") to the workers, and when. Each account has a limited number at a time.

An announcement (a ring) is only a hint and may be lost. A step that stays due is announced again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Row,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from pipeline.types import StepKind, StepState, Tier
from storage.database import now_ms
from storage.queue.steps import AHEAD, SLOW, USUAL, WAITED, free
from storage.schema import DELAYED_STEP, FRESH_STEP, OPEN_STEP, TAKEN_STEP, jobs_table, steps_table

#: Most steps of one account that are announced or leased at a time. A job of 3000 images has 60 to 190 chunks, so the limit
#: keeps room in the queue for the jobs of other accounts. Slow steps have a window of their own, because they stay in it for long.
WINDOW = 64
#: The same for the steps that stage images for slow steps. No model call slows them down, so as many as WINDOW would keep all cores busy
#: until the last image is staged, and nobody needs it so soon.
AHEAD_WINDOW = 4
#: A window is named by the priority of its steps. That of USUAL has the WAITED steps too.
_PLACES = {USUAL: WINDOW, SLOW: WINDOW, AHEAD: AHEAD_WINDOW}
RING_AGAIN_MS = 30_000  #: a step that was announced but not claimed is announced again after this time, which doubles each time
MOST_DOUBLINGS = 5
IN_HAND_MS = 2_000


@dataclass(frozen=True, slots=True)
class Ring:
    """The announcement of one step."""

    step: int
    waited: bool  #: a caller holds a connection for the step's job
    slow: bool = False  #: its calls are asked in the tier `economy`
    input: str | None = None  #: scratch key of the images that came with the request, if the worker should stage them at once
    traceparent: str | None = None  #: of the request, for what the worker does before it has claimed the step


def to_ring(
    connection: Connection, *, beside: str | None = None, known: tuple[str, str] | None = None, limit: int = 500
) -> list[Ring]:
    """Marks due steps as announced and returns them. Each account gets as many as its window has room for.

    `beside`: a job; choose only steps of that job's account, and only steps that were not announced yet. `known`: the account and the
    tier of that job, if the caller has them.

    Without `beside`, it also chooses steps that were announced but not claimed, even if the account's window is full. It does so
    after 30 s, and then after twice the time before, up to 16 minutes. The message of such a step may be lost, or may wait in a
    long queue.
    """
    if beside is not None:
        row = known or connection.execute(_account_statement(), {"job": beside}).one_or_none()
        account, tier = row or (None, None)
        windows = [(account, USUAL)] if account else []
        windows += [(account, SLOW), (account, AHEAD)] if account and tier == Tier.ECONOMY.value else []
        due = []
    else:
        windows = _windows_with_room(connection)
        due = [_ring_of(row) for row in connection.execute(_rung_long_ago(), {"most": limit})]
    for account, window in windows:
        due += _in_the_window(connection, account) if window == USUAL else _in_the_other_window(connection, account, window)
    due = sorted(due, key=lambda ring: (not ring.waited, ring.slow, ring.step))[:limit]
    if not due:
        return []
    if len(due) == 1:  # as after most steps
        rung = set(connection.scalars(_ring_one_statement(), {"one": due[0].step}))
    else:
        rung = set(connection.scalars(_ring_statement(), {"ids": [ring.step for ring in due]}))
    return [ring for ring in due if ring.step in rung]


def add_waited(connection: Connection, *, job: str, account: str, round_: int, kind: StepKind, part: int) -> list[Ring]:
    """Adds a ready step whose caller waits, and announces it in the same statement, if its account's window has room.

    It does what `steps.add` and `to_ring` do for such a step, in one trip to the database in place of three.
    """
    given = {"job": job, "of": account, "round": round_, "kind": kind.value, "part": part}
    row = connection.execute(_add_waited_statement(), given).one()
    return [Ring(row.id, waited=True)] if row.rings else []


def _ring_of(row: Row[Any]) -> Ring:
    return Ring(row.id, waited=row.priority == WAITED, slow=row.priority == SLOW)


def _windows_with_room(connection: Connection) -> list[tuple[str, int]]:
    """Windows that have a due step which was not announced yet, and room for it: the account and the window's name."""
    taken = {(row.account, row.window): row.steps for row in connection.execute(_taken_statement())}
    unrung = [(row.account, row.window, row.first) for row in connection.execute(_unrung_by_account())]
    return [
        (account, window)
        for account, window, first in unrung
        if first == WAITED or taken.get((account, window), 0) < _PLACES[window]
    ]


def _in_the_other_window(connection: Connection, account: str, window: int) -> list[Ring]:
    """The account's due steps of a window without waited steps that were not announced yet, as many as it has room for."""
    rows = connection.execute(_unrung_statement(window), {"account": account}).all()
    left = max(_PLACES[window] - rows[0].others_taken, 0) if rows else 0
    return [_ring_of(row) for row in rows[:left]]


def _in_the_window(connection: Connection, account: str) -> list[Ring]:
    """The account's due steps that were not announced yet, as many as its window has room for.

    Steps of jobs with a waiting caller come first. Only steps of such jobs count against their places in the window.
    """
    rows = connection.execute(_unrung_statement(USUAL), {"account": account}).all()
    if not rows:
        return []
    waited = [row.id for row in rows if row.priority == WAITED]
    others = [row.id for row in rows if row.priority != WAITED]
    left = max(WINDOW - rows[0].waited_taken, 0)
    left_for_others = max(left - len(waited) - rows[0].others_taken, 0)
    return [Ring(step, waited=True) for step in waited[:left]] + [Ring(step, waited=False) for step in others[:left_for_others]]


def forget_ring(connection: Connection, step: int) -> bool:
    """Has the step announced again, because a process that accepts no more steps received its message. Whether it was there."""
    ready = free(steps_table.c.id == step, steps_table.c.state == StepState.READY.value)
    return connection.execute(update(steps_table).where(ready).values(rung_at=None)).rowcount > 0


def forget_rings(connection: Connection, *, slow: bool = False) -> None:
    """Has every ready step announced again. Call it when the message queue is empty, because their messages are then lost.

    `slow`: do it for the slow steps, which have a queue of their own, instead of for the others. It skips steps announced in the last 2 s, because a worker may have their message and be about to claim them.
    """
    ready = steps_table.c.state == StepState.READY.value
    of_queue = steps_table.c.priority == SLOW if slow else steps_table.c.priority != SLOW
    long_rung = free(text(OPEN_STEP), ready, of_queue, steps_table.c.rung_at < now_ms() - IN_HAND_MS)
    connection.execute(update(steps_table).where(long_rung).values(rung_at=None))


def _due() -> ColumnElement[bool]:
    """The step is ready, due, and was not announced recently."""
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
def _add_waited_statement() -> ReturningInsert[Any]:
    same = steps_table.alias("same")
    of_account = same.c.account == bindparam("of"), same.c.priority == literal_column(str(WAITED)), text(f"({TAKEN_STEP})")
    room = select(func.count()).select_from(same).where(*of_account).scalar_subquery() < WINDOW
    return (
        insert(steps_table)
        .values(
            account=bindparam("of"),
            priority=WAITED,
            state=StepState.READY.value,
            not_before=0,
            added_at=now_ms(),
            rung_at=case((room, now_ms()), else_=null()),
            rings=case((room, 1), else_=0),
        )
        .returning(steps_table.c.id, steps_table.c.rings)
    )


@cache
def _account_statement() -> Select[Any]:
    return select(jobs_table.c.account, jobs_table.c.tier).where(jobs_table.c.id == bindparam("job"))


@cache
def _unrung_by_account() -> Select[Any]:
    columns = steps_table.c.account, _window().label("window"), steps_table.c.priority
    fresh = select(*columns).where(text(FRESH_STEP))
    delayed = select(*columns).where(text(DELAYED_STEP), steps_table.c.not_before <= _once_now())
    due = union_all(fresh, delayed).subquery().c
    return select(due.account, due.window, func.min(due.priority).label("first")).group_by(due.account, due.window)


@cache
def _taken_statement() -> Select[Any]:
    taken = select(steps_table.c.account, _window().label("window"), func.count().label("steps")).where(text(f"({TAKEN_STEP})"))
    return taken.group_by(steps_table.c.account, _window())


def _window() -> ColumnElement[int]:
    """The name of a step's window. The numbers are written out, because Postgres must see that it groups by the same."""
    usual: ColumnElement[int] = literal_column(str(USUAL), Integer)
    return case((steps_table.c.priority == literal_column(str(WAITED)), usual), else_=steps_table.c.priority)


@cache
def _rung_long_ago() -> Select[Any]:
    again = (
        select(steps_table.c.id, steps_table.c.priority)
        .where(text(f"({TAKEN_STEP})"), _due())
        .order_by(steps_table.c.priority, steps_table.c.id)
    )
    return again.limit(bindparam("most"))


@cache
def _unrung_statement(window: int) -> Select[Any]:
    """An account's due steps of a window that were not announced yet, in order. Each row also has the number of taken places."""
    same = steps_table.alias("same")
    others = same.c.priority == window
    taken = select(func.count()).select_from(same).where(same.c.account == bindparam("account"), text(f"({TAKEN_STEP})"))
    priorities = (WAITED, USUAL) if window == USUAL else (window,)
    due = union_all(*(part for priority in priorities for part in _first_due(priority))).subquery().c
    return (
        select(
            due.id,
            due.priority,
            taken.where(same.c.priority == WAITED).scalar_subquery().label("waited_taken"),
            taken.where(others).scalar_subquery().label("others_taken"),
        )
        .order_by(due.priority, due.id)
        .limit(WINDOW)
    )


def _first_due(priority: int) -> Iterator[Select[Any]]:
    """An account's due steps of one priority, at most WINDOW that were never delayed, and as many of those that were.

    Each query reads the rows that it gives, by its own index, and no step that is not due yet. Of the delayed steps it gives those
    that are due for the longest time.
    """
    columns = steps_table.c
    of_account = columns.account == bindparam("account"), columns.priority == literal_column(str(priority))
    fresh = select(columns.id, columns.priority).where(*of_account, text(FRESH_STEP)).order_by(columns.id)
    due = text(DELAYED_STEP), columns.not_before <= _once_now()
    delayed = select(columns.id, columns.priority).where(*of_account, *due).order_by(columns.not_before, columns.id)
    for each in (fresh, delayed):
        yield select(each.limit(WINDOW).subquery())


def _once_now() -> ScalarSelect[int]:
    """The time, read once for a statement. Postgres reads its clock again for each row otherwise, and can't search an index by it."""
    return select(now_ms()).scalar_subquery()


@cache
def _ring_statement() -> ReturningUpdate[int]:
    return _ringing(steps_table.c.id.in_(bindparam("ids", expanding=True)))


@cache
def _ring_one_statement() -> ReturningUpdate[int]:
    return _ringing(steps_table.c.id == bindparam("one"))


def _ringing(those: ColumnElement[bool]) -> ReturningUpdate[int]:
    still_due = free(those, _due())
    return (
        update(steps_table).where(still_due).values(rung_at=now_ms(), rings=steps_table.c.rings + 1).returning(steps_table.c.id)
    )
