"""Compares the objects in scratch with the jobs that need them.

Scratch and SQL can't be read at one moment. So an object counts as missing only if a job needed it before the list and still needs it
after it, because an object stays as long as it is needed. An object counts as left over only if it is older than anything that is under
way may be. The supervisor would have deleted it by then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, case, or_, select, union_all

from pipeline.ports import Scratch
from pipeline.scratch_key import is_input, owner_of
from storage.books.findings import Checked, Tally
from storage.books.snapshot import ROWS, snapshot
from storage.database import Database, now_ms
from storage.job import upkeep
from storage.job.upkeep import Owner
from storage.schema import chunks_table, jobs_table

ORPHANS, MISSING = "orphans", "missing"
#: The supervisor sweeps every 5 minutes, and a sweep of a large bucket takes minutes too.
ENDED_SECONDS = 1800.0
#: Objects of no job may belong to a request that is being accepted. The supervisor leaves them for 30 minutes.
UNKNOWN_SECONDS = 3600.0


def objects(database: Database, scratch: Scratch, progress: Callable[[int], None]) -> tuple[Checked, Checked]:
    """Whether scratch has every object that a job needs, and no others. Returns the outcomes of ORPHANS and MISSING.

    `progress`: called with the number of objects that were listed so far. What it remembers is in a temporary file, so any number of
    objects takes little memory. Raises Transient and Permanent.
    """
    orphans, missing = Tally(ORPHANS), Tally(MISSING)
    with closing(sqlite3.connect("")) as remembered:  # a temporary file, which SQLite keeps in memory while it is small
        remembered.execute("CREATE TABLE needed (key TEXT PRIMARY KEY, job TEXT NOT NULL) WITHOUT ROWID")
        with snapshot(database) as connection:
            for rows in _pieces(connection.execute(_needed())):
                remembered.executemany("INSERT OR IGNORE INTO needed VALUES (?, ?)", [(row.key, row.job) for row in rows])
        missing.looked_at = remembered.execute("SELECT count(*) FROM needed").fetchone()[0]
        for listed in _pieces(scratch.ages("")):
            remembered.executemany("DELETE FROM needed WHERE key = ?", [(key,) for key, _ in listed])
            with snapshot(database) as connection:
                _look_for_orphans(connection, listed, orphans)
            orphans.looked_at += len(listed)
            progress(orphans.looked_at)
        for rows in _pieces(remembered.execute("SELECT key, job FROM needed ORDER BY key")):
            _look_again(database, rows, missing)
    return orphans.checked(), missing.checked()


def _pieces(rows: Iterable[Any]) -> Iterator[list[Any]]:
    piece: list[Any] = []
    for row in rows:
        piece.append(row)
        if len(piece) == ROWS:
            yield piece
            piece = []
    if piece:
        yield piece


def _look_for_orphans(connection: Connection, listed: list[tuple[str, float]], orphans: Tally) -> None:
    owners = sorted({owner_of(key) for key, _ in listed})
    known = upkeep.scratch_owners(connection, owners)
    ended = connection.execute(_ended_since().where(jobs_table.c.id.in_(owners)))
    since = {row.id: row.ended / 1000 for row in ended}
    for key, age in listed:
        owner = owner_of(key)
        needs = known.get(owner)
        if needs is Owner.BUSY or (needs is Owner.KEPT and is_input(key)):
            continue
        if min(age, since.get(owner, age)) <= (UNKNOWN_SECONDS if needs is None else ENDED_SECONDS):
            orphans.in_flight += 1
        else:
            orphans.add(f"{key}: {'there is no such job' if needs is None else 'its job has ended'}")


def _look_again(database: Database, rows: list[tuple[str, str]], missing: Tally) -> None:
    """Counts those of the objects that were not listed and are needed all the same. The list has ended before."""
    with snapshot(database) as connection:
        needed = _needed().subquery().c
        still = set(connection.scalars(select(needed.key).where(needed.job.in_({job for _, job in rows}))))
    for key, job in rows:
        if key in still:
            missing.add(f"{key}: job {job} needs it")
        else:
            missing.in_flight += 1


@cache
def _needed() -> Select[Any]:
    """The keys that jobs need now: of open chunks, and of uploaded images that are kept for a retry."""
    jobs, chunks = jobs_table.c, chunks_table.c
    joined = chunks_table.join(jobs_table, jobs.id == chunks.job)
    key = case((chunks.object.is_not(None), chunks.object), else_=chunks.input)
    of_open = select(key.label("key"), jobs.id.label("job")).select_from(joined)
    of_open = of_open.where(jobs.finished_at.is_(None), chunks.open, or_(chunks.object.is_not(None), chunks.input.is_not(None)))
    of_kept = select(chunks.input, jobs.id).select_from(joined)
    of_kept = of_kept.where(jobs.inputs_expire_at > now_ms(), chunks.input.is_not(None))
    each = union_all(of_open, of_kept).subquery().c
    return select(each.key, each.job)


@cache
def _ended_since() -> Select[Any]:
    """For how many milliseconds each job has ended."""
    jobs = jobs_table.c
    return select(jobs.id, (now_ms() - jobs.finished_at).label("ended")).where(jobs.finished_at.is_not(None))
