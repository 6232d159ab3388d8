"""The torture's own access to the database. It reads rows, publishes messages again, and removes safeguards."""

from __future__ import annotations

import queue
import random
import threading
import time
from typing import Any

from sqlalchemy import func, inspect, select, text

from storage.database import Database
from storage.redis.errors import AWAY
from storage.redis.messages import TASK
from storage.redis.signals import QUEUE, celery_app
from storage.schema import (
    OPEN_IMAGES,
    accounts_table,
    deliveries_table,
    images_table,
    jobs_table,
    ledger_table,
    steps_table,
)

LOOK_SECONDS = 0.5
AGAIN = 0.2  #: share of the messages that are published again
LEAVE_SECONDS = 60.0  #: a step that is still held after this time counts as never reclaimed
RENEWED_SECONDS = 1.0  #: a lease that ends so much later than a dead process can have taken it was renewed by a living one

Row = dict[str, Any]


class Watch:
    """Polls the database. It publishes some messages a second time, and measures how long steps stay with dead processes.

    A process that was paused or cut off may come back before its steps are reclaimed, and renew their leases. These steps are not
    measured, because the process works on them.
    """

    def __init__(self, database: Database, redis_url: str, seed: int, *, lease_seconds: float) -> None:
        self.reclaims: list[Row] = []
        self.republished = 0
        self._database = database
        self._app = celery_app(redis_url)
        self._rng = random.Random(seed)
        self._lease_seconds = lease_seconds
        self._held: queue.SimpleQueue[tuple[str, str, float]] = queue.SimpleQueue()
        self._watched: list[Row] = []
        self._last = 0
        self.again = False  #: whether messages are published again
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.reclaims += [{**row, "seconds": None} for row in self._watched if time.time() - row["since"] > LEAVE_SECONDS]
        self._app.close()

    def held(self, process: str, owner: str) -> None:
        """Starts measuring the steps of a process that has just ended or paused. `owner`: its name in a lease."""
        self._held.put((process, owner, time.time()))

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:  # for example, Postgres restarts; try again
                continue

    def _look(self) -> None:
        with self._database.read() as connection:
            while not self._held.empty():
                process, owner, since = self._held.get()
                try:
                    owned = connection.execute(
                        select(steps_table.c.id, steps_table.c.epoch).where(
                            steps_table.c.owner == owner, steps_table.c.state == "leased"
                        )
                    ).all()
                except Exception:
                    self._held.put((process, owner, since))
                    raise
                self._watched += [{"step": row.id, "epoch": row.epoch, "process": process, "since": since} for row in owned]
            ids = [row["step"] for row in self._watched]
            found = connection.execute(
                select(steps_table.c.id, steps_table.c.epoch, steps_table.c.lease_until).where(
                    steps_table.c.id.in_(ids), steps_table.c.state == "leased"
                )
            )
            still = {(row.id, row.epoch): row.lease_until / 1000 for row in found}
            fresh = list(
                connection.execute(
                    select(steps_table.c.id).where(steps_table.c.id > self._last).order_by(steps_table.c.id)
                ).scalars()
            )
        for row in [row for row in self._watched if (row["step"], row["epoch"]) not in still]:
            self._watched.remove(row)
            self.reclaims.append({**row, "seconds": round(time.time() - row["since"], 2)})
        latest = self._lease_seconds + RENEWED_SECONDS
        self._watched = [row for row in self._watched if still[row["step"], row["epoch"]] <= row["since"] + latest]
        if fresh:
            self._last = fresh[-1]
            if self.again:
                self._publish([step for step in fresh if self._rng.random() < AGAIN])

    def _publish(self, again: list[int]) -> None:
        try:
            for step in again:
                self._app.send_task(TASK, args=[step], queue=QUEUE, retry=False)
                self.republished += 1
        except AWAY:
            return


def last_step(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.max(steps_table.c.id))) or 0


def restless(database: Database, *, without: str = "") -> int:
    """The number of open steps. `without`: an account whose steps do not count."""
    opened = select(func.count()).where(steps_table.c.state.in_(("ready", "leased")), steps_table.c.account != without)
    with database.read() as connection:
        return connection.scalar(opened) or 0


def images_left(database: Database, *, without: str) -> int:
    """The number of images that have no outcome yet. `without`: an account whose images do not count."""
    left = (
        select(func.count())
        .select_from(images_table.join(jobs_table, jobs_table.c.id == images_table.c.job))
        .where(images_table.c.state.in_(OPEN_IMAGES), jobs_table.c.finished_at.is_(None), jobs_table.c.account != without)
    )
    with database.read() as connection:
        return connection.scalar(left) or 0


def dump(database: Database) -> dict[str, list[Row]]:
    """The rows for the checker. Of a job, `phase`, `name` and `try` are from the metadata that its request had."""
    done = (
        select(images_table.c.job, func.count().label("done"))
        .where(images_table.c.state == "done")
        .group_by(images_table.c.job)
        .subquery()
    )
    names = ("id", "account", "round", "status", "total", "credits", "created_at", "finished_at", "metadata")
    made = select(*(jobs_table.c[name] for name in names), func.coalesce(done.c.done, 0).label("done")).outerjoin(
        done, done.c.job == jobs_table.c.id
    )
    with database.read() as connection:
        found = [dict(row._mapping) for row in connection.execute(made)]
        others = {
            "ledger": select(ledger_table),
            "accounts": select(accounts_table.c.id, accounts_table.c.available, accounts_table.c.held, accounts_table.c.charged),
            "deliveries": select(
                *(deliveries_table.c[name] for name in ("job", "round", "account", "id", "state", "event", "url"))
            ),
            "steps": select(steps_table),
        }
        rows = {name: [dict(row._mapping) for row in connection.execute(query)] for name, query in others.items()}
    return {"jobs": [{"phase": "", "name": "", "try": 0, **row, **(row["metadata"] or {})} for row in found], **rows}


def drop_unique_keys(database: Database) -> None:
    """Drops the constraints that prevent a second close of a job. It needs Postgres, because SQLite can't drop constraints."""
    for table in ("ledger", "steps", "deliveries"):
        for key in inspect(database.engine).get_unique_constraints(table):
            with database.write() as connection:
                connection.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{key["name"]}"'))
