"""The check of the books: nothing is found where all is well, and each fault that somebody makes by hand is found."""

from __future__ import annotations

import io
import sqlite3
import threading
from contextlib import closing

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError

from pipeline.errors import PartError
from pipeline.scratch_key import ScratchKey
from storage import schema
from storage.books.findings import EXAMPLES
from storage.books.objects import ENDED_SECONDS, UNKNOWN_SECONDS
from storage.books.queue import DEADLINE_MS, LEASE_MS, WEBHOOK_MS
from storage.books.snapshot import snapshot
from storage.books.table import CHECKS, examine
from storage.job import accepting
from storage.job.closing import cancel
from tests.fakes.scratch import MemoryScratch
from tests.rows import claimed, everything, extract_lease, job_of, new_account, new_job, now, set_steps, step_ids

HOUR = 3_600_000


@pytest.fixture
def scratch():
    return MemoryScratch()


def look(database, scratch, *only):
    """Check → its outcome, for the checks that found something."""
    found = examine(database, scratch, only=frozenset(only), progress=lambda _name, _count: None)
    return {one.check: one for one in found if one.found}


def looked(database, scratch, check):
    [one] = examine(database, scratch, only=frozenset({check}), progress=lambda _name, _count: None)
    return one


def put(scratch, key, *, age=0.0):
    scratch.put(str(key), io.BytesIO(b"body"))
    scratch.stored[str(key)] -= age


def change(database, table, **values):
    with database.write() as connection:
        connection.execute(update(table).values(**values))


def ended(database, account, **options):
    job = new_job(database, account, **options)
    with database.write() as connection:
        cancel(connection, job)
    return job


def written_by_hand(database, statement):
    """Runs a statement as somebody might by hand, without foreign keys."""
    if database.engine.dialect.name == "sqlite":  # its shell does not check them
        with closing(sqlite3.connect(database.engine.url.database)) as shell, shell:
            shell.execute(statement)
        return
    with database.write() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(statement)


def test_a_service_with_open_and_ended_jobs_is_clean(database, scratch):
    account = new_account(database)
    new_job(database, account, images=3)
    job = new_job(database, account, images=2)
    claimed(database, step_ids(database, job)[0])
    done = ended(database, account, webhook_url="https://hooks.example/")
    put(scratch, ScratchKey.of_staged(job, round_=1, chunk=0, epoch=1))
    found = examine(database, scratch, progress=lambda _name, _count: None)
    assert [one.check for one in found] == list(CHECKS)
    assert {one.check: one.examples for one in found if one.found} == {}
    assert {one.check: one.in_flight for one in found if one.in_flight} == {"webhooks": 1}
    assert looked(database, scratch, "rounds").looked_at == 3
    assert looked(database, scratch, "holds").looked_at == 2
    assert done


def test_it_reads_and_writes_nothing(database, scratch):
    account = new_account(database)
    new_job(database, account)
    change(database, schema.accounts_table, open_jobs=7, available=1)
    before = everything(database)
    assert set(look(database, scratch)) == {"ledger", "sums"}
    assert everything(database) == before


def test_a_snapshot_refuses_every_write_and_leaves_the_connection_as_it_was(database):
    account = new_account(database)
    with pytest.raises((DBAPIError, PartError)), snapshot(database) as connection:
        connection.execute(update(schema.accounts_table).values(available=1))
    new_job(database, account)


def test_a_snapshot_sees_one_moment(database):
    account = new_account(database)
    with snapshot(database) as connection:
        assert connection.scalars(select(schema.jobs_table.c.id)).all() == []
        new_job(database, account)
        assert connection.scalars(select(schema.jobs_table.c.id)).all() == []


@pytest.mark.parametrize("column", ["available", "held", "charged"])
def test_credits_that_the_ledger_does_not_have_are_found(database, scratch, column):
    account = new_account(database, 50)
    new_job(database, account)
    columns = schema.accounts_table.c
    change(database, schema.accounts_table, **{column: columns[column] + 1})
    [(name, found)] = look(database, scratch).items()
    assert (name, found.found) == ("ledger", 1)
    assert account in found.examples[0]


def test_a_round_that_was_charged_without_its_release_is_found(database, scratch):
    account = new_account(database)
    job = ended(database, account)
    with database.write() as connection:
        rows = schema.ledger_table
        connection.execute(rows.delete().where(rows.c.job == job, rows.c.kind == "release"))
    found = look(database, scratch)
    assert set(found) == {"rounds", "ledger"}
    assert job in found["rounds"].examples[0]


def test_credits_that_an_ended_job_still_holds_are_found(database, scratch):
    account = new_account(database)
    job = new_job(database, account)
    set_steps(database, state="done")
    change(database, schema.jobs_table, finished_at=1)
    found = look(database, scratch, "holds")
    assert found["holds"].examples == [f"round 1 of job {job}: 11 credits are held, and the round has ended"]


def test_credits_that_a_job_holds_which_does_not_exist_are_found_and_so_are_its_rows(database, scratch):
    account = new_account(database)
    job = new_job(database, account, images=2)
    written_by_hand(database, "DELETE FROM jobs")
    found = look(database, scratch, "holds", "ownerless", "steps")
    assert found["holds"].examples == [f"round 1 of job {job}: 12 credits are held, and there is no such job"]
    assert found["ownerless"].found == 2 + 2 + 2
    assert found["ownerless"].examples[0] == f"2 steps of job {job}, which does not exist"


def test_an_open_job_that_holds_nothing_is_found(database, scratch):
    account = new_account(database)
    job = new_job(database, account)
    written_by_hand(database, "DELETE FROM ledger WHERE kind = 'reserve'")
    assert look(database, scratch, "holds")["holds"].examples == [f"round 1 of job {job}: it is open, and holds nothing"]


def test_an_open_job_that_no_step_drives_and_work_that_is_left_of_an_ended_one_are_found(database, scratch):
    account = new_account(database)
    stuck, over = new_job(database, account), new_job(database, account)
    set_steps(database, *step_ids(database, stuck), state="dead")
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == over).values(finished_at=1))
    found = look(database, scratch, "steps")["steps"]
    assert found.found == 2
    assert found.examples[0] == f"job {stuck} is queued, and no step drives it"
    assert over in found.examples[1]


def test_a_lease_that_is_long_over_is_found_and_one_that_has_just_ended_is_under_way(database, scratch):
    account = new_account(database)
    job = new_job(database, account, images=3)
    first, second, third = step_ids(database, job)
    for step in (first, second, third):
        claimed(database, step)
    set_steps(database, first, lease_until=now(database) - LEASE_MS - 5_000)
    set_steps(database, second, lease_until=now(database) - 1_000)
    one = looked(database, scratch, "leases")
    assert (one.looked_at, one.found, one.in_flight) == (3, 1, 1)
    assert f"step {first} of job {job}: the lease of test ended 65 s ago" in one.examples


def test_a_job_that_nobody_ended_at_its_deadline_is_found(database, scratch):
    account = new_account(database)
    late, just = new_job(database, account), new_job(database, account)
    with database.write() as connection:
        for job, ago in ((late, DEADLINE_MS + HOUR), (just, 1_000)):
            moved = update(schema.jobs_table).where(schema.jobs_table.c.id == job)
            connection.execute(moved.values(deadline_at=now(database) - ago))
    one = looked(database, scratch, "deadlines")
    assert (one.found, one.in_flight) == (1, 1)
    assert late in one.examples[0]


def test_webhooks_that_nobody_sends_are_found_and_those_that_wait_for_their_next_attempt_are_under_way(database, scratch):
    account = new_account(database)
    hook = {"webhook_url": "https://hooks.example/"}
    lost, late, waits, given_up = (ended(database, account, **hook) for _ in range(4))
    [of_lost] = step_ids(database, lost, "webhook")
    [of_late] = step_ids(database, late, "webhook")
    [of_waits] = step_ids(database, waits, "webhook")
    [of_dead] = step_ids(database, given_up, "webhook")
    set_steps(database, of_lost, of_dead, state="done")
    set_steps(database, of_late, added_at=now(database) - WEBHOOK_MS - 5_000)
    set_steps(database, of_waits, added_at=0, not_before=now(database) + HOUR)
    with database.write() as connection:
        deliveries = schema.deliveries_table
        connection.execute(update(deliveries).where(deliveries.c.job == given_up).values(state="dead"))
    one = looked(database, scratch, "webhooks")
    assert (one.looked_at, one.found, one.in_flight) == (3, 2, 1)
    assert sorted("no step sends it" in example for example in one.examples) == [False, True]


@pytest.mark.parametrize("column", ["open_jobs", "kept_bytes", "stored_bytes"])
def test_kept_sums_of_an_account_that_differ_from_a_count_are_found(database, scratch, column):
    account = new_account(database)
    new_job(database, account)
    columns = schema.accounts_table.c
    change(database, schema.accounts_table, **{column: columns[column] + 1})
    [(name, found)] = look(database, scratch).items()
    assert (name, found.found) == ("sums", 1)
    assert account in found.examples[0]


def test_bytes_in_scratch_that_differ_from_a_count_are_found(database, scratch):
    with database.write() as connection:
        connection.execute(update(schema.scratch_totals_table).where(schema.scratch_totals_table.c.shard == 3).values(bytes=9))
    assert "9 more are noted" in look(database, scratch)["sums"].examples[0]


def test_objects_that_nobody_needs_are_found_once_they_are_too_old_to_be_under_way(database, scratch):
    account = new_account(database)
    over, running = ended(database, account), new_job(database, account)
    set_steps(database, *step_ids(database, over, "cleanup"), state="done")
    change(database, schema.jobs_table, started_at=1)
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == over).values(finished_at=1))
    old = ScratchKey.of_staged(over, round_=1, chunk=0, epoch=1)
    put(scratch, old, age=ENDED_SECONDS + 1)
    put(scratch, ScratchKey.of_staged(over, round_=1, chunk=0, epoch=2), age=1)
    put(scratch, "job_of_nobody/in-c0", age=UNKNOWN_SECONDS + 1)
    put(scratch, "job_being_accepted/in-c0", age=UNKNOWN_SECONDS - 60)
    put(scratch, ScratchKey.of_staged(running, round_=1, chunk=0, epoch=1), age=10 * UNKNOWN_SECONDS)
    one = looked(database, scratch, "orphans")
    assert (one.looked_at, one.found, one.in_flight) == (5, 2, 2)
    assert sorted(one.examples) == sorted([f"{old}: its job has ended", "job_of_nobody/in-c0: there is no such job"])


def test_an_object_of_a_job_that_has_just_ended_is_under_way_however_old_it_is(database, scratch):
    over = ended(database, new_account(database))
    set_steps(database, *step_ids(database, over, "cleanup"), state="done")
    put(scratch, ScratchKey.of_input(over, chunk=0), age=HOUR)
    one = looked(database, scratch, "orphans")
    assert (one.found, one.in_flight) == (0, 1)


def test_kept_images_are_no_orphans_and_are_missed_when_they_are_gone(database, scratch):
    account = new_account(database)
    new = job_of(account, keep_ms=HOUR)
    new = type(new)(**{**{name: getattr(new, name) for name in new.__dataclass_fields__}, "inputs": {0: f"{new.id}/in-c0"}})
    with database.write() as connection:
        accepting.accept(connection, new, max_open=9, max_scratch=10**9)
        cancel(connection, new.id)
    set_steps(database, state="done")
    change(database, schema.jobs_table, finished_at=1, inputs_expire_at=now(database) + HOUR)
    put(scratch, f"{new.id}/in-c0", age=ENDED_SECONDS * 2)
    assert look(database, scratch, "orphans", "missing") == {}
    scratch.delete([f"{new.id}/in-c0"])
    assert look(database, scratch, "missing")["missing"].examples == [f"{new.id}/in-c0: job {new.id} needs it"]


def test_an_object_that_an_open_job_needs_is_missed(database, scratch):
    account = new_account(database)
    job = new_job(database, account, images=2)
    extract_lease(database, job, 0)
    extract_lease(database, job, 1)
    put(scratch, f"{job}/c0")
    one = looked(database, scratch, "missing")
    assert (one.looked_at, one.found, one.in_flight) == (2, 1, 0)
    assert one.examples == [f"{job}/c1: job {job} needs it"]


def test_an_object_of_a_job_that_ends_while_scratch_is_listed_is_not_missed(database):
    account = new_account(database)
    job = new_job(database, account)
    extract_lease(database, job, 0)

    class Ending(MemoryScratch):
        def ages(self, prefix):
            with database.write() as connection:
                cancel(connection, job)
            return super().ages(prefix)

    one = looked(database, Ending(), "missing")
    assert (one.looked_at, one.found, one.in_flight) == (1, 0, 1)


def test_of_many_findings_all_are_counted_and_the_first_are_named(database, scratch):
    for number in range(2500):
        put(scratch, f"nobody_{number}/in-c0", age=UNKNOWN_SECONDS + 1)
    seen = []
    found = examine(database, scratch, only=frozenset({"orphans"}), progress=lambda _name, count: seen.append(count))
    assert [(one.found, len(one.examples)) for one in found] == [(2500, EXAMPLES)]
    assert seen == [0, 1000, 2000, 2500]


def test_nothing_is_found_while_jobs_come_and_end(database, scratch):
    account = new_account(database, 10**6)
    stop, faults = threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                job = new_job(database, account, images=2)
                key = f"{job}/c0"
                put(scratch, key)
                extract_lease(database, job, 0)
                with database.write() as connection:
                    cancel(connection, job)
                scratch.delete([key])
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    found = [look(database, scratch) for _ in range(15)]
    stop.set()
    for thread in threads:
        thread.join()
    assert (faults, [one for one in found if one]) == ([], [])


def test_a_ledger_row_that_appears_twice_is_refused_by_the_database_itself(database):
    account = new_account(database)
    job = new_job(database, account)
    row = {"account": account, "job": job, "round": 1, "kind": "reserve", "amount": 1, "created_at": 0}
    with pytest.raises((DBAPIError, PartError)), database.write() as connection:
        connection.execute(insert(schema.ledger_table), [row])
    with database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM ledger")) == 2
