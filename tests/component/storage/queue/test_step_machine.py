"""Whatever becomes of workers and messages, each job ends once, as it should, and is paid for once."""

from __future__ import annotations

import queue
from contextlib import ExitStack, suppress
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, update

from pipeline.types import Answer, Finish, ItemCode, JobStatus
from storage import schema
from storage.job import chunks, evidence
from storage.queue import steps
from storage.queue.steps import Lease, LostLease
from tests.fakes.engine import FakeEngine
from tests.harness import CREDITS, b64, running
from tests.rows import claimed, job_row, quick_folder, step_ids, stolen, worked_on
from workers.run import run_lease, run_step

GOOD, BAD, REFUSED = "good", "bad", "refused"
CODES = {BAD: "unsupported_format", REFUSED: "safety_blocked"}


def refuse(call: Any, _number: int) -> Answer | None:
    if any(picture.data.startswith(b"img refused") for picture in call.pictures):
        return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
    return None


class Work:
    """A worker with a lease: it may be slow, paused past its lease, or never come back."""

    def __init__(self, lease: Any) -> None:
        self.lease = lease
        self.commit: Any = None


class Queue(RuleBasedStateMachine):
    """The real steps on real rows; Hypothesis decides who does what when."""

    jobs = Bundle("jobs")
    workers = Bundle("workers")

    @initialize()
    def start(self) -> None:
        self.stack = ExitStack()
        folder = self.stack.enter_context(quick_folder())
        self.house = self.stack.enter_context(
            running(folder, workers_count=0, engine=FakeEngine(script=refuse), IMAGES_PER_CALL="2", MERGED_PER_CALL="2")
        )
        self.wanted: dict[str, list[str]] = {}
        self.late: set[str] = set()
        self.ended: dict[str, Any] = {}

    # Callers

    @rule(
        target=jobs,
        pictures=st.lists(st.sampled_from([GOOD, GOOD, BAD, REFUSED]), min_size=1, max_size=5),
        each=st.booleans(),
        waited=st.booleans(),
        evidence=st.booleans(),
    )
    def post(self, pictures, each, waited, evidence):
        """`waited`: a caller holds a connection for the job, so that a small one is carried to its end under one lease."""
        texts = [b"none" if kind == BAD else f"img {kind} {place}".encode() for place, kind in enumerate(pictures)]
        body = {
            "inputMethod": "base64",
            "images": [b64(text) for text in texts],
            "prompt": "p",
            **({"granularity": "perImage", "evidence": evidence} if each else {}),
        }
        answer = self.house.post(body, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202
        jobs = schema.jobs_table
        with self.house.database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == answer.json["id"]).values(waited=waited))
        self.wanted[answer.json["id"]] = pictures
        return answer.json["id"]

    @rule(job=jobs)
    def let_the_deadline_pass(self, job):
        with self.house.database.write() as connection:
            connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(deadline_at=0))
        if job not in self.ended:
            self.late.add(job)
        self.house.supervisor.end_overdue()

    # Workers

    @rule(target=workers)
    def claim_what_is_rung(self):
        try:
            step = self.house.signals.rung.get_nowait()
        except queue.Empty:
            return multiple()
        return self._claim(step)

    @rule(target=workers, place=st.integers(0, 200))
    def claim_what_a_stray_message_names(self, place):
        ids = self._steps()
        return self._claim(ids[place % len(ids)]) if ids else multiple()

    @rule(worker=workers)
    def work(self, worker):
        """All of a step but its last commit. Long after the job's end there may be nothing to work on."""
        try:
            worker.commit = worked_on(self.house.work, worker.lease)
        except LostLease:
            assert not self._holds(worker.lease)
        except (FileNotFoundError, RuntimeError):
            assert not self._holds(worker.lease), "who holds the lease finds all that the step needs"

    @rule(worker=workers)
    def commit(self, worker):
        """In time or far too late, once or again."""
        if worker.commit is None:
            return
        held = self._holds(worker.lease)
        try:
            with self.house.database.write() as connection:
                worker.commit(connection)
        except LostLease:
            assert not held
        else:
            assert held

    @rule(worker=consumes(workers), counts=st.booleans())
    def hand_back(self, worker, counts):
        held = self._holds(worker.lease)
        try:
            with self.house.database.write() as connection:
                steps.hand_back(connection, worker.lease, delay_ms=0, counts=counts)
        except LostLease:
            assert not held
        else:
            assert held

    @rule(worker=consumes(workers))
    def give_up(self, worker):
        """As after three failures of the service's own: what the chunk has not settled fails. Records that have no evidence stand."""
        if worker.lease.kind not in {"stage", "extract", "ground"}:
            return
        if worker.lease.kind == "ground":
            with suppress(LostLease), self.house.database.write() as connection:
                evidence.give_up(connection, worker.lease)
            return
        held = self._holds(worker.lease)
        try:
            with self.house.database.write() as connection:
                chunks.record_dead(connection, worker.lease, "d")
        except LostLease:
            assert not held
        else:
            assert held
            self.late.add(worker.lease.job)  # its images may have failed: what comes of it is open

    @rule(worker=workers)
    def heartbeat(self, worker):
        held = self._holds(worker.lease)
        with self.house.database.write() as connection:
            lost = not steps.renew(connection, worker.lease, lease_ms=60_000)
        assert lost == (not held)

    @rule(target=workers, worker=workers)
    def overtake(self, worker):
        """Its lease runs out while it is paused, and another takes the step."""
        if not self._holds(worker.lease):
            return multiple()
        self._expire(schema.steps_table.c.id == worker.lease.step)
        other = self._claim(worker.lease.step)
        assert isinstance(other, Work)
        assert other.lease.epoch > worker.lease.epoch
        return other

    @rule(worker=workers)
    def work_and_be_overtaken_before_the_commit(self, worker):
        self.work(worker)
        self.overtake(worker)
        self.commit(worker)

    @rule(worker=consumes(workers))
    def die(self, worker):
        """Nothing more is heard of it."""

    @rule()
    def a_good_worker_takes_one_message(self):
        try:
            step = self.house.signals.rung.get_nowait()
        except queue.Empty:
            return
        run_step(self.house.work, step)

    @rule(place=st.integers(0, 200))
    def redeliver(self, place):
        ids = self._steps()
        if ids:
            run_step(self.house.work, ids[place % len(ids)])

    # Time, Redis, the supervisor

    @rule()
    def all_leases_run_out(self):
        self._expire(schema.steps_table.c.state == "leased")

    @rule(worker=workers)
    def a_lease_runs_out(self, worker):
        self._expire(schema.steps_table.c.id == worker.lease.step)

    @rule()
    def redis_forgets_everything(self):
        self.house.signals.rung = queue.SimpleQueue()

    @rule()
    def tick(self):
        self.house.age_rings()
        self.house.supervisor.tick()

    @rule()
    def sweep(self):
        self.house.supervisor.sweep()

    # What always holds

    @invariant()
    def money_is_conserved(self):
        available, held, charged = self.house.balance()
        assert available + held + charged == CREDITS
        assert min(available, held, charged) >= 0
        columns = schema.ledger_table.c
        with self.house.database.read() as connection:
            kinds = connection.execute(
                select(columns.job, columns.kind, func.count())
                .where(columns.job.is_not(None))
                .group_by(columns.job, columns.kind)
            ).all()
            over = set(
                connection.execute(select(schema.jobs_table.c.id).where(schema.jobs_table.c.finished_at.is_not(None))).scalars()
            )
        expected = {
            (job, kind, 1) for job in self.wanted for kind in ("reserve", *(("charge", "release") if job in over else ()))
        }
        assert {tuple(row) for row in kinds} == expected

    @invariant()
    def a_job_that_has_ended_never_changes(self):
        for job, row in self._rows().items():
            if JobStatus(row.status).ended:
                assert self.ended.setdefault(job, row) == row

    @invariant()
    def an_ended_job_has_no_work_left_that_could_be_claimed(self):
        columns = schema.steps_table.c
        with self.house.database.read() as connection:
            left = connection.execute(
                select(columns.job).where(columns.state.in_(("ready", "leased")), columns.kind != "cleanup")
            ).scalars()
            assert not {*left} & {*self.ended}

    def teardown(self):
        if not hasattr(self, "stack"):
            return
        with self.stack:
            self._expire(schema.steps_table.c.state == "leased")
            self.house.signals.rung = queue.SimpleQueue()
            for _ in range(2):
                self.house.skip_waits()
                self.house.age_rings()
                self.house.drain()
            self.house.supervisor.sweep()
            assert self.house.scratch.objects == {}
            self.a_job_that_has_ended_never_changes()
            self.money_is_conserved()
            assert self.ended.keys() == self.wanted.keys(), "every job ends"
            for job, pictures in self.wanted.items():
                self._check_end(job, pictures)

    def _check_end(self, job, pictures):
        row, columns = self.ended[job], schema.images_table.c
        with self.house.database.read() as connection:
            images = connection.execute(
                select(columns.state, columns.code).where(columns.job == job).order_by(columns.index)
            ).all()
        done = sum(image.state == "done" for image in images)
        assert {image.state for image in images} <= {"done", "failed"}
        assert row.credits == (10 + done if done else 0)
        if job not in self.late:
            expected = [("done", None) if kind == GOOD else ("failed", CODES[kind]) for kind in pictures]
            assert [tuple(image) for image in images] == expected

    def _claim(self, step):
        with self.house.database.write() as connection:
            lease = steps.claim(connection, step, owner="machine", lease_ms=60_000)
        return Work(lease) if lease else multiple()

    def _holds(self, lease):
        columns = schema.steps_table.c
        with self.house.database.read() as connection:
            row = connection.execute(select(columns.state, columns.epoch).where(columns.id == lease.step)).one()
        return (row.state, row.epoch) == ("leased", lease.epoch)

    def _steps(self):
        with self.house.database.read() as connection:
            return list(connection.execute(select(schema.steps_table.c.id).order_by(schema.steps_table.c.id)).scalars())

    def _rows(self):
        columns = schema.jobs_table.c
        with self.house.database.read() as connection:
            rows = connection.execute(
                select(columns.id, columns.status, columns.result, columns.error_code, columns.credits, columns.finished_at)
            )
            return {row.id: row for row in rows}

    def _expire(self, which):
        with self.house.database.write() as connection:
            connection.execute(
                update(schema.steps_table).where(which, schema.steps_table.c.state == "leased").values(lease_until=0)
            )
        self.house.supervisor.reclaim()


@pytest.mark.hypothesis
def test_whatever_becomes_of_workers_and_messages_each_job_ends_once_and_is_paid_once():
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            database=None,
            phases=[Phase.generate],  # shrinking a story of real transactions takes minutes, and says little more
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_a_worker_that_was_overtaken_takes_nothing_of_the_winner_s(make_harness):
    """Both have put the chunk's object; the loser deletes its own, and the winner's is read to the end."""
    house = make_harness(workers_count=0)
    body = {"inputMethod": "base64", "images": [b64(b"img a"), b64(b"img b")], "prompt": "p"}
    job = house.post(body, headers={"Prefer": "respond-async"}).json["id"]
    (step,) = step_ids(house.database, job)
    slow = claimed(house.database, step)
    winners: list[Lease] = []
    put = house.scratch.put

    def put_and_be_overtaken(key: str, body: IO[bytes]) -> None:
        put(key, body)
        if not winners:
            winners.append(stolen(house.database, slow))
            commit = worked_on(house.work, winners[0])
            with house.database.write() as connection:
                commit(connection)

    house.scratch.put = put_and_be_overtaken  # type: ignore[method-assign]
    assert run_lease(house.work, slow) == []
    [winner] = winners
    assert sorted(house.scratch.objects) == [f"{job}/in-c0", f"{job}/r1-c0-e{winner.epoch}"]
    house.drain()
    assert job_row(house.database, job).status == "succeeded"
    assert house.engine.calls[0].pictures[1].data == b"img b"
