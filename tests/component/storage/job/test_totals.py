"""The totals that accept compares with its limits equal what the jobs' rows say, whatever becomes of the jobs."""

from __future__ import annotations

import queue
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select, update
from structlog.testing import capture_logs

from storage import schema
from storage.job import accepting, closing, totals
from storage.job.totals import Wrong
from tests.harness import b64, running
from tests.rows import at_once, job_of, new_account, new_job, quick_folder
from workers.run import run_step

RIGHT = Wrong(accounts=[], scratch=0)
JOBS = "/api/v1/jobs"


def check(database) -> Wrong:
    with database.read() as connection:
        return totals.check(connection)


class Jobs(RuleBasedStateMachine):
    """Two accounts and what their callers, the workers and the supervisor do with jobs."""

    jobs = Bundle("jobs")

    @initialize()
    def start(self) -> None:
        self.stack = ExitStack()
        folder = self.stack.enter_context(quick_folder())
        self.house = self.stack.enter_context(running(folder, workers_count=0, MAX_OPEN_JOBS="3", MAX_SCRATCH_BYTES="5000"))
        self.keys = [self.house.key, self.house.new_key()[1]]

    @rule(
        target=jobs,
        mine=st.booleans(),
        keep=st.sampled_from([0, 600]),
        images=st.lists(st.sampled_from([b"none", b"img" + b"0" * 500]), min_size=1, max_size=3),
    )
    def post(self, mine, keep, images):
        """Some posts are refused by a limit, and must count nothing."""
        key = self.keys[mine]
        body = {"inputMethod": "base64", "images": [b64(image) for image in images], "prompt": "p", "keepInputsSeconds": keep}
        answer = self.house.post(body, key=key, headers={"Prefer": "respond-async"})
        assert answer.status_code in {202, 429}
        return (answer.json.get("id", "job_none"), key)

    @rule(target=jobs, mine=st.booleans())
    def post_urls(self, mine):
        key = self.keys[mine]
        body = {"inputMethod": "url", "images": self.house.urls(2), "prompt": "p"}
        answer = self.house.post(body, key=key, headers={"Prefer": "respond-async"})
        return (answer.json.get("id", "job_none"), key)

    @rule()
    def work_on_one_step(self):
        self.house.supervisor.ring()
        with suppress(queue.Empty):
            run_step(self.house.work, self.house.signals.rung.get_nowait())

    @rule()
    def work_on_all(self):
        self.house.drain()

    @rule(job=jobs, action=st.sampled_from(["cancel", "retry"]))
    def act(self, job, action):
        assert self.house.ask("POST", f"{JOBS}/{job[0]}/{action}", key=job[1]).status_code in {200, 202, 402, 404, 409, 410, 429}

    @rule(job=jobs)
    def delete(self, job):
        assert self.house.ask("DELETE", f"{JOBS}/{job[0]}", key=job[1]).status_code in {204, 404, 409}

    @rule(job=jobs)
    def let_the_deadline_pass(self, job):
        with self.house.database.write() as connection:
            connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job[0]).values(deadline_at=0))
        self.house.supervisor.end_overdue()

    @rule()
    def let_kept_images_expire(self):
        self.house.expire_inputs()

    @rule()
    def let_results_expire(self):
        self.house.make_expired()
        self.house.supervisor.purge()

    @invariant()
    def the_totals_are_what_the_rows_say(self):
        if hasattr(self, "house"):
            assert check(self.house.database) == RIGHT

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()


@pytest.mark.hypothesis
def test_after_any_run_of_accept_close_cancel_retry_delete_and_expiry_the_totals_equal_the_counts():
    chosen = settings(
        max_examples=12,
        stateful_step_count=25,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
        derandomize=True,
        database=None,
    )
    run_state_machine_as_test(Jobs, settings=chosen)


def test_jobs_that_begin_and_end_at_once_leave_right_totals(database):
    mine = [new_account(database) for _ in range(2)]

    def life(account: str) -> None:
        for _ in range(4):
            new = replace(job_of(account), scratch_bytes=700, input_bytes=700, keep_ms=1000)
            with database.write() as connection:
                accepting.accept(connection, new, max_open=100, max_scratch=10**12)
            with database.write() as connection:
                closing.cancel(connection, new.id)

    assert at_once(*[lambda account=account: life(account) for account in mine * 3]) == [None] * 6
    assert check(database) == RIGHT
    with database.read() as connection:
        assert totals.in_scratch(connection) == 24 * 700


def test_wrong_totals_are_found_and_counted_again(database):
    mine, other = new_account(database), new_account(database)
    for account in (mine, mine, other):
        new_job(database, account)
    with database.write() as connection:
        connection.execute(
            update(schema.accounts_table).where(schema.accounts_table.c.id == mine).values(open_jobs=7, kept_bytes=9)
        )
        totals.count_scratch(connection, "job_1", -50)
    wrong = check(database)
    assert wrong == Wrong(accounts=[mine], scratch=-50)
    with database.write() as connection:
        totals.mend(connection, wrong)
    assert check(database) == RIGHT
    with database.read() as connection:
        open_jobs = select(schema.accounts_table.c.open_jobs).where(schema.accounts_table.c.id == mine)
        assert connection.execute(open_jobs).scalar_one() == 2


def test_a_change_that_is_under_way_is_not_lost_when_the_totals_are_counted_again(database):
    """The totals are counted while a transaction has changed its job and not committed. On SQLite writers wait for each other."""
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    account = new_account(database)
    job = new_job(database, account)
    with database.write() as connection:
        connection.execute(update(schema.accounts_table).values(open_jobs=5))
        totals.count_scratch(connection, job, 50)
    with database.write() as under_way:
        # As a process does that has written the job's row and comes to the totals next.
        under_way.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(finished_at=1))
        with database.write() as connection:
            totals.mend(connection, totals.check(connection))
        totals.count_account(under_way, account, open_jobs=-1)
    assert check(database) == RIGHT


def test_the_supervisor_mends_wrong_totals_and_says_so(make_harness):
    house = make_harness(workers_count=0)
    with house.database.write() as connection:
        connection.execute(update(schema.accounts_table).values(open_jobs=-3))
    with capture_logs() as lines:
        house.supervisor.check_totals()
        house.supervisor.check_totals()
    assert [line["event"] for line in lines] == ["totals_were_wrong"]
    assert check(house.database) == RIGHT
