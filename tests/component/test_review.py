"""What two transactions at once, a full pool, odd answers and odd names must not do."""

from __future__ import annotations

import threading

import pytest
from google.genai import errors
from sqlalchemy import Connection, func, select, text, update

from cli.local_key import ready_key
from pipeline.asking.ask import ChunkOutcome
from pipeline.engines.gemini import _meaning, _server
from pipeline.finalize import JobOutcome, conclude
from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import Answer, Finish, JobStatus, Question, Reply, Usage
from storage import schema
from storage.account import accounts
from storage.database import Database, migrate
from storage.job import accepting, chunks, closing
from storage.job.locked import lock_job
from storage.queue import ringing, steps
from storage.sql_errors import NoConnectionFree
from tests.fakes.engine import FakeEngine
from tests.rows import (
    StagedChunk,
    at_once,
    claimed,
    eventually,
    extract_lease,
    job_of,
    job_row,
    new_account,
    new_job,
    set_steps,
    staged_images,
    step_ids,
)

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def postgres_database(postgres_server):
    """A database in which two transactions write at once, as SQLite's never do."""
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        yield database
        database.close()


def waits_for_nobody(connection: Connection) -> None:
    connection.execute(text("SET LOCAL lock_timeout = '3s'"))


def test_who_accepts_a_job_does_not_wait_for_the_steps_of_a_job_that_ends(postgres_database):
    account = new_account(postgres_database)
    ending = new_job(postgres_database, account, images=3)
    new = job_of(account)
    with postgres_database.write() as accepter, postgres_database.write() as closer:
        waits_for_nobody(accepter)
        accepting.accept(accepter, new, max_open=10, max_scratch=10**12)
        steps.cancel_open(closer, job=ending, round_=1)
        assert len(ringing.to_ring(accepter, beside=new.id)) == 1


def test_of_two_who_ring_at_once_only_one_rings_a_step(postgres_database):
    account = new_account(postgres_database)
    job = new_job(postgres_database, account, images=5)
    with postgres_database.write() as first, postgres_database.write() as second:
        waits_for_nobody(second)
        assert {ring.step for ring in ringing.to_ring(first, beside=job)} == set(step_ids(postgres_database, job))
        assert ringing.to_ring(second, beside=job) == []


def test_a_lease_that_somebody_is_just_writing_with_is_reclaimed_only_after_that(postgres_database):
    account = new_account(postgres_database)
    lease = claimed(postgres_database, step_ids(postgres_database, new_job(postgres_database, account))[0])
    set_steps(postgres_database, lease.step, lease_until=0)
    with postgres_database.write() as writing, postgres_database.write() as supervisor:
        steps.check(writing, lease)
        waits_for_nobody(supervisor)
        assert steps.reclaim_expired(supervisor) == 0
    with postgres_database.write() as supervisor:
        assert steps.reclaim_expired(supervisor) == 1


def test_an_answer_that_is_recorded_while_its_job_s_deadline_comes_is_kept(postgres_database):
    database = postgres_database
    job = new_job(database, new_account(database), images=2, chunk=2)
    staging = claimed(database, step_ids(database, job)[0])
    with database.write() as connection:
        (step,) = chunks.record_staged(connection, staging, key="k", chunk=StagedChunk(staged=staged_images(0, 2)))
    lease = claimed(database, step)
    answered = ChunkOutcome(replies=(Reply(indexes=(0,), text="", result="x"),), usage=Usage(model_calls=1))
    holds = threading.Event()

    def record():
        with database.write() as connection:
            steps.check(connection, lease)
            holds.set()
            eventually(lambda: waiting(database) == 1)
            chunks.record_outcome(connection, lease, answered, last=False)

    def end():
        holds.wait(20)
        with database.write() as connection:
            closing.close_overdue(connection, job)

    assert at_once(record, end) == [None, None]
    row = job_row(database, job)
    assert (row.status, row.credits, row.result) == ("partial", 11, '[{"index":0,"result":"x"}]')


def waiting(database: Database) -> int:
    """Sessions that wait for another one's lock."""
    with database.read() as connection:
        return connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")).scalar_one()


def test_a_job_past_its_deadline_ends_as_late_and_not_as_cancelled(database):
    job = new_job(database, new_account(database), images=2)
    extract_lease(database, job, 0)
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).values(deadline_at=0))
        closing.close_overdue(connection, job)
        codes = connection.execute(select(schema.images_table.c.code, func.count()).group_by(schema.images_table.c.code)).all()
    assert [tuple(row) for row in codes] == [("deadline_exceeded", 2)]


def test_a_model_s_text_with_a_nul_can_be_stored(make_harness):
    engine = FakeEngine(script=lambda _call, _number: Answer(finish=Finish.COMPLETE, text="one\x00two"))
    answer = make_harness(engine=engine).post({"inputMethod": "url", "images": ["https://a.example/"], "prompt": "p"})
    assert answer.status_code == 400  # nothing lies behind that URL
    harness = make_harness(engine=engine)
    answer = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"})
    assert answer.json["results"] == "one\ufffdtwo"


def test_waiting_in_vain_for_a_database_connection_uses_up_no_try(make_harness):
    engine = FakeEngine(script=lambda _call, number: NoConnectionFree("QueuePool limit reached") if number <= 5 else None)
    harness = make_harness(engine=engine, workers_count=0)
    accepted = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}, headers=ASYNC)
    for _ in range(7):
        harness.drain()
        harness.skip_waits()
    assert harness.get(accepted.headers["Location"]).json["status"] == "succeeded"


def test_a_job_whose_answers_can_not_be_read_again_ends_without_cost():
    deep = Reply(indexes=(0,), text="[" * 100_000 + "]" * 100_000)
    verdict = conclude(JobOutcome(question=Question(prompt="p", json_mode=True), total=1, replies=[deep], failures=[]))
    assert (verdict.status, verdict.result) == (JobStatus.FAILED, None)
    assert verdict.error == ("internal_error", "The model's answers are nested too deeply to be merged.")


@pytest.mark.parametrize("quoted", ["api_key:AIzaSyB-secret_1", "api_key:AQ.secret", "project x, key AIzaSyB-secret_1"])
@pytest.mark.parametrize("code", [400, 403])
def test_what_the_model_says_is_passed_on_without_the_key(quoted, code):
    said = {"error": {"code": code, "status": "PERMISSION_DENIED", "message": f"Consumer '{quoted}' has been suspended."}}
    meaning = _meaning(errors.ClientError(code, said), _server(""))
    told = f"{meaning} {getattr(meaning, 'notice', '')}"
    assert "has been suspended" in told
    assert "secret" not in told


def test_a_ready_key_leaves_everybody_else_s_keys_and_credits_alone(database):
    with database.write() as connection:
        account = accounts.create_account(connection, "local")
        key = accounts.create_key(connection, account=account, name="local", secret_key=b"s")
    first, second = (ready_key(database, b"s") for _ in range(2))
    with database.read() as connection:
        assert accounts.account_of(connection, key, b"s") == account
        assert accounts.available_credits(connection, account) == 0
        assert accounts.account_of(connection, first, b"s") is None
        assert accounts.account_of(connection, second, b"s") not in {None, account}


def test_a_ready_key_is_kept_in_a_file_of_its_owner_until_it_is_no_longer_valid(database, tmp_path):
    kept = tmp_path / "ready_key"
    first = ready_key(database, b"s", kept)
    assert (kept.read_text().strip(), kept.stat().st_mode & 0o777) == (first, 0o600)
    assert ready_key(database, b"s", kept) == first
    with database.write() as connection:
        accounts.revoke_key(connection, accounts.key_id(first))
    second = ready_key(database, b"s", kept)
    assert second != first
    assert ready_key(database, b"another secret", kept) != second
    kept.write_bytes(b"\xff no key")
    last = ready_key(database, b"s", kept)
    with database.read() as connection:
        assert accounts.account_of(connection, last, b"s") is not None
        assert accounts.account_of(connection, second, b"s") is None


def test_a_ready_key_of_a_database_that_was_deleted_is_replaced(tmp_path):
    kept = tmp_path / "ready_key"
    keys = []
    for name in ("first.db", "second.db"):
        database = Database(f"sqlite:///{tmp_path / name}")
        migrate(database)
        keys.append(ready_key(database, b"s", kept))
        database.close()
    assert keys[0] != keys[1] == kept.read_text().strip()


def test_a_supervisor_that_rings_steps_anew_does_not_wait_for_who_ends_their_job(postgres_database):
    job = new_job(postgres_database, new_account(postgres_database), images=3)
    set_steps(postgres_database, rung_at=0, rings=1)
    with postgres_database.write() as supervisor, postgres_database.write() as closer:
        waits_for_nobody(supervisor)
        lock_job(closer, job)
        ringing.forget_rings(supervisor)
        assert len(ringing.to_ring(supervisor)) == 3


def test_a_refused_key_is_known_however_late_gemini_says_it():
    said = f"{'The request was looked at. ' * 20}API key not valid."
    meaning = _meaning(
        errors.ClientError(400, {"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}), _server("")
    )
    assert isinstance(meaning, ModelUnavailable)
    assert meaning.cause is Cause.ACCOUNT
