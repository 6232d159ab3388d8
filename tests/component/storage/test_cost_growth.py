"""What a job, the supervisor and a look at the service cost stays the same, however many jobs were there before.

Counted in steps of SQLite's virtual machine, which are the same each time: a table that is gone through shows at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import pytest
from sqlalchemy import event

from storage.database import Database, migrate
from storage.queue import ringing
from tests.harness import Harness
from tests.rows import new_account, new_job, now, set_steps, step_ids

ASYNC = {"Prefer": "respond-async"}
#: The credits of each of the last days: it adds up what the account did in them.
REPORTS = "GROUP BY ledger.created_at"


@contextmanager
def counting(database: Database) -> Iterator[dict[str, float]]:
    """Fills in the virtual machine's steps for a run of each statement, with the reading of its rows."""
    steps: Counter[str] = Counter()
    runs: Counter[str] = Counter()

    def before(connection, _cursor, statement, *_):
        runs[statement] += 1

        def count() -> int:
            steps[statement] += 1
            return 0

        connection.connection.dbapi_connection.set_progress_handler(count, 1)

    found: dict[str, float] = {}
    event.listen(database.engine, "before_cursor_execute", before)
    yield found
    event.remove(database.engine, "before_cursor_execute", before)
    database.close()  # its connections count on
    found |= {statement: steps[statement] / runs[statement] for statement in runs}


def run_jobs(harness: Harness, count: int) -> None:
    body = {"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}
    for _ in range(count):
        assert harness.post(body, headers=ASYNC).status_code == 202
        harness.drain()


def use_everything(harness: Harness, name: str) -> None:
    body = {"inputMethod": "url", "images": harness.urls(3), "prompt": "p"}
    told = body | {"webhookUrl": "https://hook.example/"}
    assert harness.post(told, headers=ASYNC | {"Idempotency-Key": name}).status_code == 202
    harness.drain()
    job = harness.post(body, headers=ASYNC).json["id"]
    harness.supervisor._due = {"check_credits": inf}  # it reads the whole ledger, and so only once an hour
    harness.supervisor.tick()
    assert harness.ask("POST", f"/api/v1/jobs/{job}/cancel").status_code == 200
    harness.drain()
    assert harness.ask("POST", f"/api/v1/jobs/{job}/retry").status_code == 202
    harness.drain()
    looked_for = body | {"granularity": "perImage", "jsonMode": True, "evidence": True}
    assert harness.post(looked_for, headers=ASYNC).status_code == 202
    harness.drain()
    for path in (
        f"/api/v1/jobs/{job}",
        f"/api/v1/jobs/{job}/items",
        "/api/v1/jobs",
        "/api/v1/jobs?status=partial",
        "/api/v1/usage",
    ):
        assert harness.get(path).status_code == 200, path
    assert harness.client.get("/metrics").status_code == 200
    assert harness.ask("DELETE", f"/api/v1/jobs/{job}").status_code == 204
    harness.drain()


def cost_of_ringing(database: Database, job: str) -> float:
    with counting(database) as found, database.write() as connection:
        ringing.to_ring(connection, beside=job)
    return sum(found.values())


def test_what_a_step_rings_as_it_ends_costs_the_same_however_much_is_queued(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'queue.db'}")
    migrate(database)
    account, other = new_account(database), new_account(database)
    mine, others = new_job(database, account, images=200), new_job(database, other)
    cost_of_ringing(database, mine)  # its window is full from here on
    before = [cost_of_ringing(database, job) for job in (mine, others)]
    for _ in range(3):
        new_job(database, account, images=1000)
    after = [cost_of_ringing(database, job) for job in (mine, others)]
    for few, many in zip(before, after, strict=True):
        assert many <= few * 1.1
    database.close()


@pytest.mark.parametrize("waited", [False, True])
def test_what_a_step_rings_as_it_ends_costs_the_same_however_many_webhooks_wait_to_be_sent_again(tmp_path, waited):
    database = Database(f"sqlite:///{tmp_path / 'queue.db'}")
    migrate(database)
    account = new_account(database)
    mine = new_job(database, account, images=10, chunk=1)
    hooks = new_job(database, account, images=1000, chunk=1, waited=waited)
    (first, *later) = step_ids(database, hooks)
    set_steps(database, *later, state="done")
    set_steps(database, first, not_before=now(database) + 3_600_000)
    before = cost_of_ringing(database, mine)
    set_steps(database, *step_ids(database, mine), rung_at=None)
    set_steps(database, *later, state="ready", not_before=now(database) + 3_600_000)
    assert cost_of_ringing(database, mine) <= before * 1.1
    database.close()


def test_no_statement_goes_through_what_is_over(make_harness):
    harness = make_harness(workers_count=0)
    run_jobs(harness, 30)  # pages and reports are full from here on
    with counting(harness.database) as few:
        use_everything(harness, "few")
    run_jobs(harness, 200)
    with counting(harness.database) as many:
        use_everything(harness, "many")
    grown = {
        statement: (few[statement], steps)
        for statement, steps in many.items()
        if statement in few and REPORTS not in statement and steps > few[statement] * 1.1 + 30
    }
    assert len(few.keys() & many.keys()) > 70
    assert grown == {}
