"""Corrections of records by people. They stand beside the model's record, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from storage.database import now_ms
from storage.job import stored
from storage.job.locked import lock_job
from storage.job.views import finished_at_of
from storage.schema import accounts_table, images_table


class Conflict(Exception):
    """The correction was changed by somebody else meanwhile, or the job began another round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correctable:
    """What a correction of an image begins with."""

    result: Any  #: the model's record; None if the image failed
    corrections: dict[str, Any] | None  #: see `put`
    revision: int  #: how often it was corrected or checked
    now: int  #: milliseconds since 1970 by the database's clock


def correctable(connection: Connection, job: str, index: int) -> Correctable | None:
    """The image's record and its corrections. None if there is no such image."""
    columns = images_table.c
    query = select(columns.result, columns.corrections, columns.revision, now_ms().label("now"))
    row = connection.execute(query.where(columns.job == job, columns.index == index)).one_or_none()
    return Correctable(**row._mapping) if row else None  # noqa: SLF001 - SQLAlchemy's public name for it


def put(
    connection: Connection,
    job: str,
    index: int,
    corrections: Mapping[str, Any],
    *,
    revision: int,
    finished_at: int | None,
    most: int,
) -> None:
    """Replaces the corrections of an image: `record` (if it differs), `changes`, `checked`, `checkedAt`, `checkedBy`; times in milliseconds.

    `revision`: that of the corrections which they replace. `finished_at`: when the job had ended. `most`: bytes that the account's
    jobs may keep. Raises Conflict, StoredFull, or JobGone if the job was deleted. The caller must then roll back.
    """
    locked = lock_job(connection, job)
    if not locked.status.ended or finished_at_of(connection, job) != finished_at:
        raise Conflict
    columns = images_table.c
    same = columns.job == job, columns.index == index, columns.revision == revision
    values = {"corrections": dict(corrections), "checked": corrections["checked"], "revision": revision + 1}
    if not connection.execute(update(images_table).where(*same).values(**values)).rowcount:
        raise Conflict
    before = _stored(connection, locked.account)
    stored.recount(connection, [job])
    if before < _stored(connection, locked.account) > most:
        raise stored.StoredFull


def _stored(connection: Connection, account: str) -> int:
    return connection.scalar(select(accounts_table.c.stored_bytes).where(accounts_table.c.id == account)) or 0
