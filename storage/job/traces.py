"""Reads the trace that a job belongs to."""

from __future__ import annotations

from sqlalchemy import Connection, select

from storage.schema import jobs_table


def traceparent_of(connection: Connection, job: str) -> str | None:
    """The trace of the request that started the job's round. None if it has none, or if there is no such job."""
    found: str | None = connection.scalar(select(jobs_table.c.traceparent).where(jobs_table.c.id == job))
    return found
