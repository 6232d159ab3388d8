"""The queue: rows of `steps`, claimed by lease and fenced by epoch.

A ready step becomes leased. A leased step becomes done, dead, split or cancelled, or ready again. A message in Redis only says
"look at step N", and may be lost or arrive twice. A claim raises the step's epoch, and each later write for the step names that
epoch. So a worker that was paused until its lease expired can't change anything.

A transaction that locks several rows locks them in the order job, steps, account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    Select,
    TextClause,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from pipeline.types import JobStatus, StepKind, StepState, Tier
from storage.database import now_ms
from storage.schema import OPEN_STATES, OPEN_STEP, jobs_table, steps_table

#: The states in which the lease's holder may end the step.
Finished = Literal[StepState.DONE, StepState.DEAD, StepState.SPLIT]

#: The kinds of step that a job's end cancels.
_WORK = tuple(kind.value for kind in (StepKind.STAGE, StepKind.EXTRACT, StepKind.GROUND, StepKind.FINALIZE))

#: The values of `priority`, in the order in which steps are announced. AHEAD: the step stages images for slow steps.
WAITED, USUAL, SLOW, AHEAD = 0, 1, 2, 3
#: The priority of the steps of an economy job, by their kind; USUAL for all other kinds.
_IN_ECONOMY = {StepKind.STAGE: AHEAD, StepKind.EXTRACT: SLOW}
ALONE_AFTER = 2  #: a step runs in its own process after this number of expired leases


class LostLease(Exception):
    """The step has a new epoch, because another worker claimed it or its job has ended. Nothing was written."""


class JobGone(LostLease):
    """The job was deleted together with its steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to work on a step for a limited time."""

    step: int
    job: str
    round: int
    kind: StepKind
    part: int  #: the chunk's number
    epoch: int
    tries: int  #: failures so far that count towards giving the step up
    request: str | None = None  #: id of the HTTP request that started the job's round, for the log
    account: str = ""  #: of the job, for the log
    expiries: int = 0  #: leases of the step that expired before
    alone: bool = False  #: run the step in its own process, because so many leases of it expired
    slow: bool = False  #: its calls are asked in the tier `economy`, which takes minutes
    traceparent: str | None = None  #: the trace of the request that started the job's round; None: it was not traced


def add(
    connection: Connection,
    *,
    job: str,
    round_: int,
    kind: StepKind,
    parts: Sequence[int] = (0,),
    delay_ms: int = 0,
    expiries: int = 0,
) -> list[int]:
    """Adds ready steps. Returns their ids in the order of `parts`.

    `expiries`: leases that count as expired, because a process may have died of the steps' work already.
    """
    same = {"job": job, "round": round_, "kind": kind.value, "state": StepState.READY.value, "not_before": 0}
    rows = connection.execute(
        _add_statement(in_economy=_IN_ECONOMY.get(kind, USUAL)),
        [{**same, "of": job, "part": part, "expiries": expiries} for part in parts],
    )
    ids = [int(row.id) for row in rows]
    if delay_ms:
        connection.execute(update(steps_table).where(steps_table.c.id.in_(ids)).values(not_before=now_ms() + delay_ms))
    return ids


def add_claimed(connection: Connection, after: Lease, *, kind: StepKind, owner: str, lease_ms: int) -> Lease:
    """Adds a step to the job of the lease `after`, and claims it in the same statement."""
    given = {"of": after.job, "in": after.round, "kind": kind.value, "by": owner, "for_ms": lease_ms}
    row = connection.execute(_add_claimed_statement(), given).one()
    return _lease(row.id, row, after.request, after.traceparent)


@cache
def _add_claimed_statement() -> ReturningInsert[Any]:
    account, priority = _of_job(bindparam("of"), in_economy=USUAL)
    until = now_ms() + bindparam("for_ms", type_=BigInteger)
    claimed = {"state": StepState.LEASED.value, "owner": bindparam("by"), "epoch": 1, "lease_until": until}
    of_round = {"job": bindparam("of"), "round": bindparam("in"), "kind": bindparam("kind"), "part": 0}
    added = insert(steps_table).values(**of_round, **claimed, added_at=now_ms(), not_before=0, account=account, priority=priority)
    return added.returning(steps_table.c.id, *_of_lease())


@cache
def _add_statement(*, in_economy: int) -> ReturningInsert[tuple[int]]:
    account, priority = _of_job(bindparam("of"), in_economy=in_economy)
    added = insert(steps_table).values(added_at=now_ms(), account=account, priority=priority)
    return added.returning(steps_table.c.id, sort_by_parameter_order=True)


def _of_job(job: ColumnElement[str], *, in_economy: int) -> tuple[ScalarSelect[str], ScalarSelect[int]]:
    """The account and the priority that a step takes from its job. `in_economy`: its priority if the job's tier is `economy`."""
    row = jobs_table.c.id == job
    waited = (jobs_table.c.waited, WAITED)
    economy = [(jobs_table.c.tier == Tier.ECONOMY.value, in_economy)] if in_economy != USUAL else []
    priority = select(case(waited, *economy, else_=USUAL)).where(row)
    return select(jobs_table.c.account).where(row).scalar_subquery(), priority.scalar_subquery()


def claim(connection: Connection, step: int, *, owner: str, lease_ms: int, after: Lease | None = None) -> Lease | None:
    """Claims the step if it is due. Returns None if it is not: it has ended, is leased, is not due yet, or is of an unknown kind.

    The first claim of a job's step sets the job's status to running. `after`: the lease of the previous step of the same job,
    if there was one; it saves two statements. Without it, Postgres does all of it in one statement.
    """
    given = {"step": step, "by": owner, "for_ms": lease_ms}
    if after is None and connection.dialect.name == "postgresql":
        whole = connection.execute(_first_claim(), given).one_or_none()
        return lease_of(step, whole) if whole else None
    started = None if after else connection.execute(_running_statement(), {"step": step}).one_or_none()
    row = connection.execute(_claim_statement(), given).one_or_none()
    if row is None:
        return None
    if after:
        return _lease(step, row, after.request, after.traceparent)
    return _lease(step, row, *(started or connection.execute(_request_statement(), {"job": row.job}).one()))


def lease_of(step: int, row: Row[Any]) -> Lease:
    """The lease, from a row of `first_claim`."""
    return _lease(step, row, row.request_id, row.traceparent)


def _lease(step: int, row: Row[Any], request: str | None, traceparent: str | None) -> Lease:
    return Lease(
        step=step,
        job=row.job,
        round=row.round,
        kind=StepKind(row.kind),
        part=row.part,
        epoch=row.epoch,
        tries=row.tries,
        request=request,
        account=row.account,
        expiries=row.expiries,
        alone=row.expiries >= ALONE_AFTER,
        # A step that runs alone is asked at the standard price, because its process may not take as long as a slow call.
        slow=row.priority == SLOW and row.expiries < ALONE_AFTER,
        traceparent=traceparent,
    )


@cache
def _running_statement() -> ReturningUpdate[Any]:
    of_step = select(steps_table.c.job).where(steps_table.c.id == bindparam("step")).scalar_subquery()
    queued = update(jobs_table).where(jobs_table.c.id == of_step, jobs_table.c.status == JobStatus.QUEUED.value)
    return queued.values(status=JobStatus.RUNNING.value, started_at=now_ms()).returning(*_of_request())


@cache
def _first_claim() -> Select[Any]:
    return first_claim()[0]


def first_claim() -> tuple[Select[Any], CTE]:
    """What `_running_statement` and `_claim_statement` do, for Postgres; and the claimed step, to which more can be joined.

    The job is locked first, because the claim counts the jobs that began. The statement takes the values `step`, `by` and `for_ms`.
    """
    begun = _running_statement().cte("begun")
    claimed = _claiming(select(func.count()).select_from(begun).scalar_subquery() >= 0).cte("claimed")
    return select(claimed, *_of_request()).join(jobs_table, jobs_table.c.id == claimed.c.job), claimed


@cache
def _claim_statement() -> ReturningUpdate[Any]:
    return _claiming()


def _claiming(*more: ColumnElement[bool]) -> ReturningUpdate[Any]:
    """`more`: further conditions."""
    until = now_ms() + bindparam("for_ms", type_=BigInteger)
    is_due = steps_table.c.state == StepState.READY.value, steps_table.c.not_before <= now_ms()
    is_known = or_(*(steps_table.c.kind == kind.value for kind in StepKind))  # others wait for the workers of a newer version
    return (
        update(steps_table)
        .where(steps_table.c.id == bindparam("step"), *is_due, is_known, *more)
        .values(
            state=StepState.LEASED.value, owner=bindparam("by"), epoch=steps_table.c.epoch + 1, lease_until=until, held_money=0
        )
        .returning(*_of_lease())
    )


def _of_lease() -> tuple[ColumnElement[Any], ...]:
    """What a lease knows of its step."""
    names = ("job", "account", "round", "kind", "part", "epoch", "tries", "expiries", "priority")
    return tuple(steps_table.c[name] for name in names)


@cache
def _request_statement() -> Select[Any]:
    # This is its own statement, because SQLite does not use the index of jobs in a RETURNING clause.
    return select(*_of_request()).where(jobs_table.c.id == bindparam("job"))


def _of_request() -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """What a lease knows of the request that started the job's round."""
    return jobs_table.c.request_id, jobs_table.c.traceparent


def renew(connection: Connection, lease: Lease, *, lease_ms: int) -> bool:
    """Extends the lease. Returns whether the lease was still held."""
    prolonged = update(steps_table).where(_fence()).values(lease_until=now_ms() + lease_ms)
    return connection.execute(prolonged, _of(lease)).rowcount > 0


def is_lost(connection: Connection, lease: Lease) -> bool:
    """Whether another worker claimed or ended the step, or the step was deleted. False if the lease's holder ended it."""
    return connection.scalar(select(steps_table.c.epoch).where(steps_table.c.id == lease.step)) != lease.epoch


def check(connection: Connection, lease: Lease) -> None:
    """Locks the step's row for this transaction. Raises LostLease if the lease is not held any more."""
    _write(connection, lease, update(steps_table).where(_fence()).values(epoch=steps_table.c.epoch))


def hold_money(connection: Connection, lease: Lease, nanodollars: int) -> None:
    """Sets the highest cost of the step's call in flight, in billionths of a dollar. Raises LostLease."""
    _write(connection, lease, update(steps_table).where(_fence()).values(held_money=nanodollars))


def finish(connection: Connection, lease: Lease, *, state: Finished = StepState.DONE) -> None:
    """Ends the step. Raises LostLease."""
    _write(connection, lease, _end_statement(state))


def finish_held(connection: Connection, leases: Sequence[Lease]) -> None:
    """Ends those of the steps whose leases are still held. It locks them in the order of `leases`."""
    connection.execute(_end_statement(StepState.DONE), [_of(lease) for lease in leases])


@cache
def _end_statement(state: Finished) -> Update:
    return update(steps_table).where(_fence()).values(owner=None, lease_until=None, state=state.value)


def hand_back(connection: Connection, lease: Lease, *, delay_ms: int, counts: bool) -> None:
    """Makes the step ready again, due after `delay_ms`. `counts`: count this as a failure of the step. Raises LostLease."""
    ready = (
        update(steps_table)
        .where(_fence())
        .values(state=StepState.READY.value, owner=None, lease_until=None, rung_at=None, rings=0)
    )
    tries = steps_table.c.tries + (1 if counts else 0)
    _write(connection, lease, ready.values(tries=tries, not_before=now_ms() + delay_ms))


def hurry(connection: Connection, lease: Lease) -> None:
    """Makes a slow step ready again, to be asked at the standard price by the threads of usual steps. Raises LostLease."""
    ready = update(steps_table).where(_fence()).values(state=StepState.READY.value, owner=None, lease_until=None)
    _write(connection, lease, ready.values(priority=USUAL, rung_at=None, rings=0, not_before=0))


def hurry_waiting(connection: Connection, ids: Sequence[int]) -> int:
    """As `hurry`, for steps that nobody holds, also those that stage for slow steps. Returns how many of them there were."""
    unhurried = steps_table.c.priority.in_((SLOW, AHEAD))
    waiting = free(steps_table.c.id.in_(ids), steps_table.c.state == StepState.READY.value, unhurried)
    usual = {"priority": USUAL, "rung_at": None, "rings": 0, "not_before": 0}
    return connection.execute(update(steps_table).where(waiting).values(**usual)).rowcount


def count_death(connection: Connection, lease: Lease) -> int:
    """Counts the death of a process that ran only this step. Returns the number of deaths so far. Raises LostLease."""
    died = update(steps_table).where(_fence()).values(deaths=steps_table.c.deaths + 1).returning(steps_table.c.deaths)
    deaths = connection.scalar(died, _of(lease))
    if deaths is None:
        raise LostLease(f"step {lease.step} of job {lease.job}")
    return int(deaths)


def _write(connection: Connection, lease: Lease, statement: Update) -> None:
    if connection.execute(statement, _of(lease)).rowcount == 0:
        raise LostLease(f"step {lease.step} of job {lease.job}")


def _fence() -> ColumnElement[bool]:
    """Matches the step only while the lease is held. `_of` gives the parameters."""
    return and_(
        steps_table.c.id == bindparam("step"),
        steps_table.c.epoch == bindparam("of_epoch"),
        steps_table.c.state == StepState.LEASED.value,
    )


def _of(lease: Lease) -> dict[str, int]:
    return {"step": lease.step, "of_epoch": lease.epoch}


def cancel_open(connection: Connection, *, job: str, round_: int) -> int:
    """Cancels a round's open work steps, so that the workers that hold them can't write any more.

    Returns the milliseconds until the last of their leases expires, 0 if none was leased. The caller holds the job's lock.
    """
    left = connection.execute(_cancel_statement(), {"of": job, "in": round_}).scalars()
    return max([0, *(int(milliseconds or 0) for milliseconds in left)])


@cache
def _cancel_statement() -> ReturningUpdate[Any]:
    """It keeps `lease_until`, because the worker that held the step may still work on it until then."""
    work = and_(
        steps_table.c.job == bindparam("of"),
        steps_table.c.round == bindparam("in"),
        steps_table.c.kind.in_(_WORK),
        steps_table.c.state.in_(OPEN_STATES),
    )
    cancelled = {"state": StepState.CANCELLED.value, "epoch": steps_table.c.epoch + 1, "owner": None}
    return update(steps_table).where(work).values(**cancelled).returning(steps_table.c.lease_until - now_ms())


def any_open(connection: Connection) -> bool:
    """Whether there is any step to work on, now or later. A read that finds none is much cheaper than a write that changes none."""
    return connection.scalar(_an_open_step()) is not None


@cache
def _an_open_step() -> Select[int]:
    return select(steps_table.c.id).where(text(OPEN_STEP)).limit(1)


def reclaim_expired(connection: Connection) -> int:
    """Makes steps with an expired lease ready again. Returns their number."""
    return connection.execute(
        update(steps_table)
        .where(free(text(OPEN_STEP), steps_table.c.state == StepState.LEASED.value, steps_table.c.lease_until < now_ms()))
        .values(
            state=StepState.READY.value,
            epoch=steps_table.c.epoch + 1,
            expiries=steps_table.c.expiries + 1,
            owner=None,
            lease_until=None,
            rung_at=None,
            rings=0,
        )
    ).rowcount


def free(*conditions: ColumnElement[bool] | TextClause) -> ColumnElement[bool]:
    """The steps that match and that no other transaction has locked.

    We skip locked steps, because the other transaction will announce or end them itself, and because waiting could deadlock. A
    transaction that ends a job locks many steps in another order, and then the account's row. A transaction that accepts a job
    may hold that row already.
    """
    return steps_table.c.id.in_(select(steps_table.c.id).where(*conditions).with_for_update(skip_locked=True))
