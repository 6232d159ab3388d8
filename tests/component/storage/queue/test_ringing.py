"""What is rung, of any steps at all: each account's window, worked out anew from all that is open."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select

from storage import schema
from storage.database import Database, migrate, now_ms
from storage.queue import ringing
from storage.queue.ringing import WINDOW, Ring
from tests.rows import new_account, new_job

NO_ACCOUNT_LIMIT = 10_000


@dataclass(frozen=True)
class Step:
    job: int
    state: str
    rung: bool
    waits: bool  #: for its time


STATES = st.sampled_from(
    [("ready", False), ("ready", False), ("ready", True), ("leased", False), ("leased", True), ("done", True)]
)
STEPS = st.builds(
    lambda job, state, waits: Step(job, state[0], rung=state[1], waits=waits and state == ("ready", False)),
    st.integers(0, 3),
    STATES,
    st.sampled_from([False, False, False, True]),
)
#: Runs of equal steps, so that windows fill.
TABLES = st.lists(st.tuples(STEPS, st.sampled_from([1, 1, 3, 30, 70])), max_size=8)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    made = Database(f"sqlite:///{tmp_path_factory.mktemp('ringing') / 'steps.db'}")
    migrate(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def jobs(database):
    """Two accounts with two jobs each, of which one is waited for: account and job."""
    accounts = [new_account(database) for _ in range(2)]
    return [(account, new_job(database, account, waited=waited), waited) for account in accounts for waited in (False, True)]


def fill(connection, jobs, steps):
    connection.execute(delete(schema.steps_table))
    now = connection.scalar(select(now_ms()))
    rows = []
    for part, step in enumerate(steps):
        account, job, waited = jobs[step.job]
        times = {"rung_at": now if step.rung else None, "rings": int(step.rung), "not_before": now + 60_000 if step.waits else 0}
        named = {"id": part + 1, "job": job, "round": 1, "kind": "stage", "part": part, "state": step.state, "added_at": now}
        rows.append({**named, **times, "account": account, "priority": 0 if waited else 1})
    if rows:
        connection.execute(insert(schema.steps_table), rows)


def expected(jobs, steps):
    """Those that are due and not rung, among each account's first WINDOW that take a place or could."""
    places = defaultdict(list)
    for part, step in enumerate(steps):
        account, _, waited = jobs[step.job]
        if step.state == "leased" or (step.state == "ready" and not step.waits):
            taken = step.state == "leased" or step.rung
            places[account].append((not waited, not taken, part + 1))
    rung = [place for window in places.values() for place in sorted(window)[:WINDOW]]
    return [
        Ring(step, waited=not others) for others, unrung, step in sorted(rung, key=lambda place: (place[0], place[2])) if unrung
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=TABLES)
def test_each_account_s_window_is_filled_in_order(database, jobs, table):
    steps = [step for step, count in table for _ in range(count)]
    with database.write() as connection:
        fill(connection, jobs, steps)
        assert ringing.to_ring(connection, limit=NO_ACCOUNT_LIMIT) == expected(jobs, steps)
        assert ringing.to_ring(connection, limit=NO_ACCOUNT_LIMIT) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=TABLES)
def test_beside_a_job_its_account_s_window_is(database, jobs, table):
    steps = [step for step, count in table for _ in range(count)]
    own = {number for number, (account, _, _) in enumerate(jobs) if account == jobs[0][0]}
    with database.write() as connection:
        fill(connection, jobs, steps)
        mine = [ring for ring in expected(jobs, steps) if steps[ring.step - 1].job in own]
        assert ringing.to_ring(connection, beside=jobs[0][1]) == mine
