"""Counts the bytes that an account's jobs keep in SQL, so that one account can't fill the database.

Each job has its number, and the account has their sum. The transaction that changes what a job keeps also changes both numbers: it
accepts the job, ends a round of it, purges its results, or deletes it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    Update,
    bindparam,
    cast,
    func,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from storage.schema import accounts_table, chunks_table, deliveries_table, images_table, jobs_table, merges_table

RESULT, WARNINGS = "new_result", "new_warnings"  #: parameters of a statement that ends a job
IMAGE_BYTES = 100  #: counted for the row of each image, beside its texts


class StoredFull(Exception):
    """The account's jobs would keep more bytes in SQL than MAX_STORED_BYTES."""


def bytes_of(texts: Iterable[str | None], values: Sequence[Mapping[str, Any] | None], *, images: int) -> int:
    """The bytes that a new job keeps: its texts, its JSON values, and the rows of its images."""
    of_texts = sum(len(text.encode("utf-8", "replace")) for text in texts if text)
    return of_texts + sum(len(json.dumps(value)) for value in values if value) + images * IMAGE_BYTES


def recount(connection: Connection, jobs: Sequence[str]) -> None:
    """Counts again what the jobs keep. The caller has locked them."""
    more: Counter[str] = Counter()
    for job in jobs:
        row = connection.execute(_measure(connection.dialect.name), {"job": job}).one()
        if row.now != row.before:
            connection.execute(_job_statement(), {"of": job, "size": row.now})
            more[row.account] += row.now - row.before
    for account in sorted(more):  # sorted, so that two transactions wait for each other and do not deadlock
        connection.execute(_account_statement(), {"of": account, "more": more[account]})


def recount_job(connection: Connection, job: str) -> int:
    """Counts again what a job keeps, and returns it. The caller has locked the job, and adds the difference to the account."""
    return int(connection.execute(_recount(connection.dialect.name), {"job": job}).scalar_one())


def forget(connection: Connection, job: str) -> None:
    """Counts a job that is about to be deleted no more. The caller has locked it."""
    row = connection.execute(select(jobs_table.c.account, jobs_table.c.stored_bytes).where(jobs_table.c.id == job)).one()
    connection.execute(_account_statement(), {"of": row.account, "more": -row.stored_bytes})


@cache
def _job_statement() -> Update:
    return update(jobs_table).where(jobs_table.c.id == bindparam("of")).values(stored_bytes=bindparam("size", type_=BigInteger))


@cache
def _account_statement() -> Update:
    after = accounts_table.c.stored_bytes + bindparam("more", type_=BigInteger)
    return update(accounts_table).where(accounts_table.c.id == bindparam("of")).values(stored_bytes=after)


@cache
def _measure(dialect: str) -> Select[Any]:
    """The account of a job, the bytes that were counted for it, and those that it keeps now."""
    jobs = jobs_table.c
    columns = jobs.account, jobs.stored_bytes.label("before"), kept(dialect).label("now")
    return select(*columns).where(jobs.id == bindparam("job"))


@cache
def _recount(dialect: str) -> ReturningUpdate[int]:
    jobs = jobs_table.c
    counted = update(jobs_table).where(jobs.id == bindparam("job")).values(stored_bytes=kept(dialect))
    return counted.returning(jobs.stored_bytes)


def new_result() -> ColumnElement[str]:
    """The result that a statement gives a job. Parameter: RESULT."""
    return bindparam(RESULT, type_=Text)


def new_warnings() -> ColumnElement[Any]:
    """The warnings that a statement gives a job. Parameter: WARNINGS."""
    return bindparam(WARNINGS, type_=JSON)


def kept(dialect: str, *, ending: bool = False) -> ColumnElement[int]:
    """The bytes that a row of `jobs` keeps. Parameter: `job`, its id.

    `ending`: the statement gives the job `new_result` and `new_warnings`, which count in place of those that it had. Their parameters
    are RESULT and WARNINGS.
    """

    def size(*columns: ColumnElement[Any]) -> ColumnElement[int]:
        texts = (cast(column, Text) for column in columns)
        sizes = (func.octet_length(text) if dialect == "postgresql" else func.length(cast(text, LargeBinary)) for text in texts)
        return sum((func.coalesce(one, 0) for one in sizes), start=cast(0, BigInteger))

    def total(job: ColumnElement[str], *columns: ColumnElement[Any], each: int = 0) -> ColumnElement[int]:
        summed = select(func.coalesce(func.sum(size(*columns) + each), 0)).where(job == bindparam("job"))
        return summed.scalar_subquery()

    jobs, images, chunks = jobs_table.c, images_table.c, chunks_table.c
    said = (new_result(), new_warnings()) if ending else (jobs.result, jobs.warnings)
    own = size(jobs.prompt, jobs.options, jobs.metadata, jobs.name, jobs.batch, jobs.webhook_url, *said)
    now = (
        own
        + total(
            images.job,
            images.source,
            images.custom_id,
            images.detail,
            images.result,
            images.corrections,
            images.evidence,
            each=IMAGE_BYTES,
        )
        + total(chunks.job, chunks.replies)
        + total(merges_table.c.job, merges_table.c.text)
        + total(deliveries_table.c.job, deliveries_table.c.body)
    )
    return cast(now, BigInteger)
