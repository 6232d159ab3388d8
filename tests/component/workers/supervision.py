"""A service without workers, and a supervisor whose clock stands still."""

from __future__ import annotations

import io

import pytest
from sqlalchemy import delete, update

from storage import schema
from tests.rows import step_ids
from workers.supervisor import Supervisor

ASYNC = {"Prefer": "respond-async"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def house(make_harness):
    return make_harness(workers_count=0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def supervisor(house, clock):
    return Supervisor(database=house.database, scratch=house.scratch, signals=house.signals, clock=clock)


def accepted(house, count=1):
    answer = house.post({"inputMethod": "url", "images": house.urls(count), "prompt": "p"}, headers=ASYNC)
    return answer.json["id"]


def put(house, key):
    house.scratch.put(key, io.BytesIO(b"x"))


def finalize_steps(house, job):
    return step_ids(house.database, job, "finalize")


def strand(house, job):
    """As if the process that closed the last chunk had not added the finalize step."""
    with house.database.write() as connection:
        connection.execute(update(schema.chunks_table).where(schema.chunks_table.c.job == job).values(open=False))
        connection.execute(
            update(schema.images_table)
            .where(schema.images_table.c.job == job)
            .values(state="failed", code="cancelled", detail="d")
        )
        connection.execute(delete(schema.steps_table).where(schema.steps_table.c.job == job))
