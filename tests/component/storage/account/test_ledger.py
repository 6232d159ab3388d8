"""Credits: conserved whatever happens, charged once, and nothing kept of what was refused."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import select, update
from sqlalchemy.exc import NoResultFound

from pipeline.finalize import Verdict
from pipeline.types import JobStatus
from storage import schema
from storage.account import accounts, ledger
from storage.account.ledger import InsufficientCredits
from storage.job import accepting, closing
from storage.job.locked import lock_job
from storage.sql_errors import ConstraintViolated
from tests.rows import at_once, everything, job_of, new_account


@pytest.fixture
def account(database):
    return new_account(database, 100)


def balance(database, account):
    columns = schema.accounts_table.c
    with database.read() as connection:
        row = connection.execute(select(columns.available, columns.held, columns.charged).where(columns.id == account)).one()
        return tuple(row)


def reserve(database, account, amount, job="job_1", round_=1):
    with database.write() as connection:
        ledger.reserve(connection, account=account, job=job, round_=round_, amount=amount)


def settle(database, account, charge, job="job_1", round_=1):
    with database.write() as connection:
        reserved = connection.execute(ledger.of_reserve(), {"job": job, "round": round_}).scalar_one()
        ledger.settle(connection, account=account, job=job, round_=round_, reserved=reserved, charge=charge)


def refused(database, error, action):
    before = everything(database)
    with pytest.raises(error):
        action()
    assert everything(database) == before


def test_a_reservation_holds_and_a_settlement_charges_and_releases(database, account):
    reserve(database, account, 60)
    assert balance(database, account) == (40, 60, 0)
    settle(database, account, 45)
    assert balance(database, account) == (55, 0, 45)


@pytest.mark.parametrize("charge", [0, 60])
def test_both_legs_are_written_even_where_one_is_nothing(database, account, charge):
    reserve(database, account, 60)
    settle(database, account, charge)
    columns = schema.ledger_table.c
    with database.read() as connection:
        rows = connection.execute(select(columns.kind, columns.amount).where(columns.job == "job_1").order_by(columns.id))
        assert [tuple(row) for row in rows] == [("reserve", 60), ("charge", charge), ("release", 60 - charge)]


def test_all_credits_can_be_reserved_and_not_one_more(database, account):
    refused(database, InsufficientCredits, lambda: reserve(database, account, 101))
    reserve(database, account, 100)
    refused(database, InsufficientCredits, lambda: reserve(database, account, 1, job="job_2"))


def test_a_refusal_says_what_is_needed_and_what_there_is(database, account):
    reserve(database, account, 70)
    with pytest.raises(InsufficientCredits) as raised:
        reserve(database, account, 31, job="job_2")
    assert (raised.value.needed, raised.value.available) == (31, 30)


def test_a_round_is_reserved_once_and_settled_once(database, account):
    reserve(database, account, 10)
    refused(database, ConstraintViolated, lambda: reserve(database, account, 10))
    settle(database, account, 10)
    refused(database, ConstraintViolated, lambda: settle(database, account, 10))
    refused(database, ConstraintViolated, lambda: settle(database, account, 0))


def test_a_second_round_of_a_job_has_credits_of_its_own(database, account):
    reserve(database, account, 10)
    settle(database, account, 10)
    reserve(database, account, 5, round_=2)
    settle(database, account, 2, round_=2)
    assert balance(database, account) == (88, 0, 12)


@pytest.mark.parametrize("charge", [-1, 61, 10**9])
def test_no_more_than_was_reserved_can_be_charged(database, account, charge):
    reserve(database, account, 60)
    refused(database, ValueError, lambda: settle(database, account, charge))


def test_what_was_not_reserved_cannot_be_settled(database, account):
    refused(database, NoResultFound, lambda: settle(database, account, 0, job="job_none"))


@pytest.mark.parametrize("amount", [0, -5])
def test_only_a_positive_grant_is_one(database, account, amount):
    def grant():
        with database.write() as connection:
            ledger.grant(connection, account, amount)

    refused(database, ValueError, grant)


def test_a_grant_to_nobody_is_refused(database, account):
    def grant():
        with database.write() as connection:
            ledger.grant(connection, "acc_none", 5)

    refused(database, ConstraintViolated, grant)


MOST_OPEN = 3
OF_A_JOB = (schema.images_table, schema.chunks_table, schema.steps_table, schema.ledger_table)


class Money(RuleBasedStateMachine):
    """Grants, jobs accepted, jobs closed, against a model of three numbers an account."""

    owners = Bundle("owners")
    open_jobs = Bundle("open_jobs")
    closed_jobs = Bundle("closed_jobs")

    def __init__(self, database):
        super().__init__()
        self.database = database
        self.money = {}  # account → [available, held, charged]
        self.open = {}  # job → account and reservation

    @rule(target=owners, granted=st.integers(0, 60))
    def open_account(self, granted):
        owner = new_account(self.database, granted)
        self.money[owner] = [granted, 0, 0]
        return owner

    @rule(owner=owners, amount=st.integers(1, 40))
    def grant(self, owner, amount):
        with self.database.write() as connection:
            ledger.grant(connection, owner, amount)
        self.money[owner][0] += amount

    @rule(target=open_jobs, owner=owners, images=st.integers(1, 12))
    def accept(self, owner, images):
        new = job_of(owner, images=images, chunk=4)
        needed = 10 + images
        of_owner = sum(account == owner for account, _ in self.open.values())
        try:
            with self.database.write() as connection:
                accepting.accept(connection, new, max_open=MOST_OPEN, max_scratch=10**12)
        except InsufficientCredits:
            assert self.money[owner][0] < needed
        except accepting.TooManyOpenJobs:
            assert of_owner == MOST_OPEN
        else:
            assert self.money[owner][0] >= needed
            assert of_owner < MOST_OPEN
            self._move(owner, -needed, needed, 0)
            self.open[new.id] = (owner, needed)
            return new.id
        assert not self._known(new.id), "a refused job leaves no row"
        return multiple()

    @rule(
        target=closed_jobs,
        job=consumes(open_jobs),
        done=st.integers(0, 12),
        failed=st.booleans(),
    )
    def close(self, job, done, failed):
        owner, held = self.open.pop(job)
        done = min(done, held - 10)
        with self.database.write() as connection:
            images = schema.images_table.c
            connection.execute(update(schema.images_table).where(images.job == job, images.index < done).values(state="done"))
        self._close(job, JobStatus.FAILED if failed else JobStatus.PARTIAL)
        charge = 0 if failed or not done else 10 + done
        self._move(owner, held - charge, -held, charge)
        return job

    @rule(job=closed_jobs, status=st.sampled_from([JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]))
    def close_again(self, job, status):
        before = self._row(job)
        assert self._close(job, status) == []
        assert self._row(job) == before

    @rule(job=closed_jobs, charge=st.integers(0, 10))
    def settle_again(self, job, charge):
        with pytest.raises(ConstraintViolated):
            settle(self.database, self._row(job).account, charge, job=job)

    @invariant()
    def every_account_has_what_the_model_says(self):
        for owner, expected in self.money.items():
            assert list(balance(self.database, owner)) == expected

    @invariant()
    def the_movements_add_up_to_the_accounts(self):
        columns = schema.ledger_table.c
        for owner, (available, held, charged) in self.money.items():
            with self.database.read() as connection:
                rows = connection.execute(select(columns.kind, columns.amount).where(columns.account == owner)).all()
            total = {
                kind: sum(row.amount for row in rows if row.kind == kind) for kind in ("grant", "reserve", "charge", "release")
            }
            assert available == total["grant"] - total["reserve"] + total["release"]
            assert held == total["reserve"] - total["charge"] - total["release"]
            assert charged == total["charge"]
            assert min(available, held, charged) >= 0

    def _move(self, owner, *change):
        self.money[owner] = [have + more for have, more in zip(self.money[owner], change, strict=True)]

    def _close(self, job, status):
        with self.database.write() as connection:
            return closing.close_job(connection, lock_job(connection, job), Verdict(status=status, result=None, error=None))

    def _row(self, job):
        with self.database.read() as connection:
            return connection.execute(select(schema.jobs_table).where(schema.jobs_table.c.id == job)).one()

    def _known(self, job):
        with self.database.read() as connection:
            return any(
                connection.execute(select(column).where(column == job)).first()
                for column in (schema.jobs_table.c.id, *(table.c.job for table in OF_A_JOB))
            )


@pytest.mark.hypothesis
def test_whatever_is_granted_accepted_and_closed_no_credit_is_made_lost_or_charged_twice(database):
    run_state_machine_as_test(
        lambda: Money(database),
        settings=settings(max_examples=20, stateful_step_count=25, database=None),
    )


def test_of_requests_at_once_only_as_many_are_accepted_as_can_be_paid(database):
    owner = new_account(database, 25)

    def accept():
        with database.write() as connection:
            accepting.accept(connection, job_of(owner), max_open=100, max_scratch=10**12)
        return "accepted"

    given = at_once(*[accept] * 5)
    assert given.count("accepted") == 2
    assert sum(isinstance(value, InsufficientCredits) for value in given) == 3
    assert balance(database, owner) == (3, 22, 0)


def test_an_account_s_credits_are_its_own(database, account):
    with database.write() as connection:
        other = accounts.create_account(connection, "other")
    refused(database, InsufficientCredits, lambda: reserve(database, other, 1))
    assert balance(database, account) == (100, 0, 0)
