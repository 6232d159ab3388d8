"""`--without` really takes its safeguard out. Otherwise a run without it fails for another reason, or passes."""

from __future__ import annotations

import pytest

from storage.job import closing
from storage.queue import ringing, steps
from storage.queue.steps import LostLease
from storage.sql_errors import ConstraintViolated
from tests.rows import claimed, new_account, new_job, ring, step_ids, stolen
from tests.torture.entry import take_out

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def put_back(monkeypatch):
    """At its end, each part that `take_out` replaces is as it was, and no statement that was built meanwhile is left."""
    for module, name in ((closing, "lock_job"), (ringing, "to_ring"), (ringing, "forget_rings"), (steps, "_fence")):
        monkeypatch.setattr(module, name, getattr(module, name))
    forget_statements()
    yield
    monkeypatch.undo()
    forget_statements()


def forget_statements():
    for made in vars(steps).values():
        if hasattr(made, "cache_clear"):
            made.cache_clear()


def cancel(database, job):
    with database.write() as connection:
        return closing.cancel(connection, job)


def finish(database, lease):
    with database.write() as connection:
        steps.finish(connection, lease)


@pytest.mark.usefixtures("put_back")
def test_without_the_ledger_s_safeguard_a_job_is_closed_twice(database):
    """Here the unique key is left, and refuses the second charge. On Postgres, the torture drops it too."""
    job = new_job(database, new_account(database))
    cancel(database, job)
    assert cancel(database, job) == []
    take_out("ledger")
    with pytest.raises(ConstraintViolated):
        cancel(database, job)


@pytest.mark.usefixtures("put_back")
def test_without_the_fence_a_late_worker_ends_another_s_step(database):
    lost = claimed(database, step_ids(database, new_job(database, new_account(database)))[0])
    stolen(database, lost)
    with pytest.raises(LostLease):
        finish(database, lost)
    take_out("fence")
    forget_statements()
    finish(database, lost)


@pytest.mark.usefixtures("put_back")
def test_without_the_second_ring_a_step_whose_message_was_lost_is_not_announced_again(database):
    new_job(database, new_account(database))
    take_out("ring")
    assert ring(database) == []
