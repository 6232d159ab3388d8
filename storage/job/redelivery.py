"""Lists webhook deliveries for their owner, and resends one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, case, func, select, tuple_, update

from pipeline.types import StepKind, StepState
from storage.database import now_ms
from storage.queue import steps
from storage.schema import OPEN_STATES, deliveries_table, jobs_table, steps_table


class NoDelivery(Exception):
    """The account has no such delivery."""


class BodyGone(Exception):
    """The webhook's body was deleted, because the job was deleted or its results have expired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryView:
    """A webhook delivery and its attempts."""

    id: str  #: the webhook-id
    job: str
    round: int
    event: str
    url: str
    state: str  #: pending, delivered, dead
    attempts: Sequence[dict[str, Any]]  #: {at, status, error, ms, text}, oldest first; those before `text` was kept have none
    created_at: int  #: milliseconds since 1970
    next_at: int | None  #: time of the next attempt in milliseconds since 1970; None if none is planned


def deliveries_of(connection: Connection, job: str) -> list[DeliveryView]:
    """The deliveries of the job, one for each round that had a webhook, newest first."""
    return _views(connection, _select().where(deliveries_table.c.job == job).order_by(deliveries_table.c.round.desc()))


def deliveries_page(
    connection: Connection, account: str, *, limit: int, state: str | None = None, after: tuple[int, str] | None = None
) -> list[DeliveryView]:
    """The account's deliveries, newest first. `after`: created_at and id of the last delivery on the previous page."""
    columns = deliveries_table.c
    query = _select().where(columns.account == account)
    if state is not None:
        query = query.where(columns.state == state)
    if after is not None:
        query = query.where(tuple_(columns.created_at, columns.id) < tuple_(*after))
    return _views(connection, query.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit))


def delivery_of_account(connection: Connection, delivery: str, account: str) -> tuple[DeliveryView, str | None] | None:
    """The delivery and the body that each attempt sends, None if the body is gone. None if the account has no such delivery."""
    mine = deliveries_table.c.id == delivery, deliveries_table.c.account == account
    found = _views(connection, _select().where(*mine))
    return (found[0], connection.scalar(select(deliveries_table.c.body).where(*mine))) if found else None


def _select() -> Select[Any]:
    waiting = (
        select(func.max(case((steps_table.c.not_before > now_ms(), steps_table.c.not_before), else_=now_ms())))
        .where(_open_step(), steps_table.c.job == deliveries_table.c.job, steps_table.c.round == deliveries_table.c.round)
        .scalar_subquery()
    )
    columns = deliveries_table.c
    shown = (
        columns.id,
        columns.job,
        columns.round,
        columns.event,
        columns.url,
        columns.state,
        columns.attempts,
        columns.created_at,
    )
    return select(*shown, waiting.label("next_at"))


def _views(connection: Connection, query: Select[Any]) -> list[DeliveryView]:
    return [DeliveryView(**row._mapping) for row in connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name for it


def redeliver(connection: Connection, delivery: str, account: str) -> str:
    """Resends a webhook with the same id and body. Returns its job.

    A delivery that waits for its next attempt becomes due now. A delivery that is being sent stays as it is. A delivery that has
    ended starts again with a new step. Raises NoDelivery or BodyGone.
    """
    mine = deliveries_table.c.id == delivery, deliveries_table.c.account == account
    job: str | None = connection.scalar(select(deliveries_table.c.job).where(*mine))
    if job is None:
        raise NoDelivery(delivery)
    # Lock the job first, as every transaction does. Of two requests at once, the second then sees the first one's new step.
    locked = connection.execute(
        select(jobs_table.c.id).where(jobs_table.c.id == job).with_for_update(key_share=True)
    ).one_or_none()
    row = connection.execute(select(deliveries_table.c.round, deliveries_table.c.body).where(*mine)).one()
    if locked is None or row.body is None:
        raise BodyGone(delivery)
    of_round = steps_table.c.job == job, steps_table.c.round == row.round, steps_table.c.kind == StepKind.WEBHOOK.value
    made_due = (
        update(steps_table)
        .where(*of_round, steps_table.c.state == StepState.READY.value)
        .values(not_before=now_ms(), rung_at=None, rings=0)
    )
    connection.execute(made_due)
    parts, open_steps = connection.execute(
        select(func.count(), func.count(case((_open_step(), 1)))).select_from(steps_table).where(*of_round)
    ).one()
    if not open_steps:
        connection.execute(update(deliveries_table).where(*mine).values(state="pending"))
        steps.add(connection, job=job, round_=row.round, kind=StepKind.WEBHOOK, parts=[parts])
    return job


def _open_step() -> Any:
    return (steps_table.c.kind == StepKind.WEBHOOK.value) & steps_table.c.state.in_(OPEN_STATES)
