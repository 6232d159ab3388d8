"""The step of a small request is announced before its commit, and is worked on only after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api import putting
from pipeline.errors import Transient
from storage import schema
from storage.job import accepting, chunk_work, closing
from storage.job.views import answer_view
from storage.queue.ringing import Ring
from storage.redis.answers import AnswerTo, Success
from storage.redis.messages import EARLY_SECONDS, Message
from testbed import PostgresServer
from tests.fakes.signals import MemorySignals
from tests.harness import Harness, b64, running
from tests.rows import job_row, step_ids, step_row
from workers import run
from workers.run import run_message, run_step

BODY = {"inputMethod": "base64", "prompt": "p", "images": [b64(b"img0")]}
RECORDS = {"granularity": "perImage", "jsonMode": True}


class EarlySignals(MemorySignals):
    """A worker takes each early message at once."""

    def __init__(self) -> None:
        super().__init__()
        self.house: Any = None
        self.early: list[Future[None]] = []
        self.announced = threading.Event()
        self.answers: list[AnswerTo] = []
        self._pool = ThreadPoolExecutor(8)

    def ring_early(self, ring: Ring) -> bool:
        message = Message(ring.step, input=ring.input, early=True, answer_to="here")
        self.early.append(self._pool.submit(run_message, self.house.work, message))
        self.announced.set()
        return True

    def tell(self, job: str, *, ended: bool = True, answered: bool = False, answer: AnswerTo | None = None) -> None:
        if answer:
            self.answers.append(answer)
        super().tell(job, ended=ended, answered=answered, answer=answer)

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def house(tmp_path, postgres_server) -> Iterator[Harness]:
    with early_house(tmp_path, postgres_server) as made:
        yield made


@pytest.fixture
def whole(tmp_path, postgres_server) -> Iterator[Harness]:
    """A service whose workers also take the steps that are announced after their commit."""
    with early_house(tmp_path, postgres_server, workers_count=2) as made:
        yield made


@contextmanager
def early_house(folder: Path, server: PostgresServer, *, workers_count: int = 0, **settings: str) -> Iterator[Harness]:
    """A service with Postgres, and a worker that stages ahead."""
    signals = EarlySignals()
    with (
        pytest.MonkeyPatch.context() as patch,
        server.database() as url,
        ThreadPoolExecutor(4) as ahead,
        running(folder, workers_count=workers_count, signals=signals, DATABASE_URL=url, **settings) as made,
    ):
        patch.setattr(putting, "PUT_SECONDS", 20.0)  # on a busy machine the put may take long, and the job would be written anew
        made.work = replace(made.work, ahead=ahead)
        signals.house = made
        yield made


@contextmanager
def announced_first(house: Harness) -> Iterator[None]:
    """The commits of this block wait for the early message, however late its thread is."""
    reserve = accepting.ledger.reserve

    def late(*given: Any, **more: Any) -> Any:
        assert house.signals.announced.wait(20)
        return reserve(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accepting.ledger, "reserve", late)
        yield


def accepted(house: Harness, **body: Any) -> tuple[str, int]:
    """A job that a caller waits for, as far as SQL knows, and its step."""
    job: str = house.post({**BODY, **body}, headers={"Prefer": "respond-async"}).json["id"]
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(waited=True))
    return job, step_ids(house.database, job)[0]


def later(house: Harness, step: int, looks: int) -> list[int]:
    """Has the step appear only after so many looks. Returns a list that has one entry for each look."""
    seen: list[int] = []

    def due(at: int) -> None:
        with house.database.write() as connection:
            connection.execute(update(schema.steps_table).where(schema.steps_table.c.id == step).values(not_before=at))

    class Late(type(house.database)):  # type: ignore[misc]
        def statements(self) -> Any:
            seen.append(step)
            if len(seen) == looks + 1:
                due(0)
            return super().statements()

    due(1 << 60)
    house.database.__class__ = Late
    return seen


@pytest.mark.parametrize("body", [{}, RECORDS, {"customIds": ["a"]}, {"images": [b64(b"img0"), b64(b"img1")]}])
def test_a_request_is_answered_and_charged_once(whole, body):
    with announced_first(whole):
        assert whole.post({**BODY, **body}).status_code == 200
    [early] = whole.signals.early
    early.result(20)
    job = whole.get("/api/v1/jobs").json["jobs"][0]["id"]
    assert [kind for kind, _ in whole.ledger(job)] == ["reserve", "charge", "release"]


@pytest.mark.parametrize("looks", [1, len(run.EARLY_NAPS)])
def test_a_step_that_is_committed_while_the_worker_looks_is_worked_on(house, looks):
    job, step = accepted(house)
    seen = later(house, step, looks)
    run_message(house.work, Message(step, input=f"{job}/in-c0", early=True))
    assert job_row(house.database, job).status == "succeeded"
    assert len(seen) > looks
    house.drain()


def test_a_step_that_is_never_committed_is_left_alone(house):
    job, step = accepted(house)
    seen = later(house, step, 1000)
    run_message(house.work, Message(step, input=f"{job}/in-c0", early=True))
    assert len(seen) == len(run.EARLY_NAPS) + 1
    assert (step_row(house.database, step).state, house.engine.calls) == ("ready", [])
    with house.database.write() as connection:
        closing.cancel(connection, job)
    house.drain()


def test_a_worker_looks_longer_than_the_front_door_relies_on():
    assert sum(run.EARLY_NAPS) >= 2 * EARLY_SECONDS


def test_a_step_that_was_committed_before_is_looked_for_once(house):
    job, step = accepted(house)
    seen = later(house, step, 1000)
    run_message(house.work, Message(step, input=f"{job}/in-c0"))
    assert len(seen) == 1
    with house.database.write() as connection:
        closing.cancel(connection, job)
    house.drain()


def test_a_worker_that_stops_has_the_step_announced_again_once_it_is_committed(house):
    job, step = accepted(house)
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).values(rung_at=1))

    class Uncommitted(type(house.database)):  # type: ignore[misc]
        """The first two looks are for a step that is not there yet."""

        looks = 0

        def statements(self) -> Any:
            type(self).looks += 1
            return super().statements()

    house.database.__class__ = Uncommitted
    forget = run.ringing.forget_ring
    house.work.stopping.set()
    try:

        def forgotten(connection: Any, wanted: int) -> bool:
            return forget(connection, wanted if Uncommitted.looks > 2 else -1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run.ringing, "forget_ring", forgotten)
            run_message(house.work, Message(step, input=f"{job}/in-c0", early=True))
    finally:
        house.work.stopping.clear()
    assert Uncommitted.looks == 3
    assert step_row(house.database, step).rung_at is None
    house.drain()
    assert job_row(house.database, job).status == "succeeded"


def test_a_database_that_fails_is_not_asked_again_and_again(house):
    job, step = accepted(house)
    asked: list[int] = []

    class Away(type(house.database)):  # type: ignore[misc]
        def statements(self) -> Any:
            asked.append(step)
            raise Transient("the database is away")

    mine = type(house.database)
    house.database.__class__ = Away
    run_message(house.work, Message(step, input=f"{job}/in-c0", early=True))
    house.database.__class__ = mine
    assert len(asked) == 1
    house.drain()


def test_a_request_that_is_refused_after_its_message_was_sent_leaves_nothing(tmp_path, postgres_server):
    with early_house(tmp_path, postgres_server, MAX_OPEN_JOBS="1") as house:
        first = house.post(BODY, headers={"Prefer": "respond-async"}).json["id"]
        with announced_first(house):
            assert house.post(BODY).status_code == 429
        [early] = house.signals.early
        early.result(20)
        assert house.engine.calls == []
        house.drain()
        assert house.get(f"/api/v1/jobs/{first}").json["status"] == "succeeded"


@pytest.mark.parametrize("images", [1, 2])
def test_the_work_is_read_with_the_first_claim_and_only_with_it(house, images):
    """A later claim may see the chunk as it was before an earlier one was ended."""
    job, step = accepted(house, images=[b64(b"img0")] * images, **RECORDS)
    for epoch in (1, 2):
        with house.database.statements() as connection:
            lease, row = chunk_work.claim_chunk(connection, step, owner="test", lease_ms=60_000)
        assert lease.epoch == epoch
        assert (row is not None) == (epoch == 1)
        with house.database.write() as connection:
            read = chunk_work.work_of(connection, lease)
            found = chunk_work.work_found(lease, row) if row else None
            assert (found is not None) == (epoch == 1 and images == 1)
            assert found is None or replace(found, left=0) == replace(read, left=0)
            run.steps.hand_back(connection, lease, delay_ms=0, counts=False)
    house.drain()
    assert job_row(house.database, job).status == "succeeded"


def test_a_step_of_another_kind_is_claimed_without_work(house):
    job, step = accepted(house)
    run_step(house.work, step)
    [cleanup] = step_ids(house.database, job, "cleanup")
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).where(schema.steps_table.c.id == cleanup).values(state="ready", epoch=0))
    with house.database.statements() as connection:
        lease, row = chunk_work.claim_chunk(connection, cleanup, owner="test", lease_ms=60_000)
    assert (lease.kind.value, row) == ("cleanup", None)
    with house.database.write() as connection:
        run.steps.hand_back(connection, lease, delay_ms=0, counts=False)
    house.drain()


def test_work_that_can_t_be_read_is_a_failure_of_its_step(house, monkeypatch):
    """Whatever fails after the claim is handled while the lease is held, so nobody waits until it expires."""
    job, step = accepted(house)

    def broken(*_: Any) -> Any:
        raise ValueError("the options of another version")

    with monkeypatch.context() as patch:
        patch.setattr(chunk_work, "question_of", broken)
        run_message(house.work, Message(step, input=f"{job}/in-c0"))
    row = step_row(house.database, step)
    assert (row.state, row.tries) == ("ready", 1)
    with house.database.write() as connection:
        closing.cancel(connection, job)
    house.drain()


@pytest.mark.parametrize(
    "body",
    [{}, RECORDS, {"images": [b64(b"img0")] * 2}, {"prompt": "ü" * 3000}, {"onError": "fail"}, {"customIds": ["a"], **RECORDS}],
)
def test_the_answer_that_is_sent_is_the_one_in_sql(house, body):
    job, step = accepted(house, **body)
    run_message(house.work, Message(step, input=f"{job}/in-c0", answer_to="there"))
    [sent] = house.signals.answers
    assert sent.channel == "there"
    with house.database.read() as connection:
        view = answer_view(connection, job, house.account)
    assert view is not None
    assert sent.success == Success(
        images=view.succeeded, credits=view.credits, prompt=view.result.prompt, result=view.result.result
    )
    assert (view.status, view.expired, list(view.result.failures), view.result.evidence) == ("succeeded", False, [], None)
    house.drain()


@pytest.mark.parametrize(
    "body", [{"images": [b64(b"img0"), b64(b"none")]}, {"images": [b64(b"none")]}, {"onError": "fail", "images": [b64(b"none")]}]
)
def test_a_job_with_failed_images_is_read_from_sql(house, body):
    job, step = accepted(house, **body)
    run_message(house.work, Message(step, input=f"{job}/in-c0", answer_to="there"))
    assert house.signals.answers == []
    assert job_row(house.database, job).status in {"partial", "failed"}
    house.drain()


def test_a_worker_that_lost_its_lease_sends_no_answer(house):
    job, step = accepted(house)

    def cancelled() -> None:
        with house.database.write() as connection:
            closing.cancel(connection, job)

    house.work = replace(house.work, load_engine=cancelled)
    run_message(house.work, Message(step, input=f"{job}/in-c0", answer_to="there"))
    assert house.signals.answers == []
    house.drain()


def test_with_sqlite_nothing_is_announced_before_its_commit(tmp_path):
    early: list[Ring] = []
    with running(tmp_path, workers_count=2) as house:
        house.signals.ring_early = early.append
        assert house.post(BODY).status_code == 200
    assert early == []


def test_a_request_that_can_be_sent_again_is_announced_after_its_commit(whole):
    """The transaction of a request with an Idempotency-Key has its account locked from its beginning."""
    assert whole.post(BODY, headers={"Idempotency-Key": "k"}).status_code == 200
    assert whole.signals.early == []


def test_the_job_is_not_there_when_its_step_is_announced_early_and_its_waiter_is(whole):
    """Whoever takes the message at once must find who waits, and must not find the step."""
    seen: list[tuple[int, int]] = []
    ring_early = whole.signals.ring_early

    def looked(ring: Ring) -> bool:
        seen.append((whole.count_rows("jobs"), len(whole.signals._watches._of)))
        return bool(ring_early(ring))

    whole.signals.ring_early = looked
    with announced_first(whole):
        assert whole.post(BODY).status_code == 200
    assert seen == [(0, 1)]


def test_a_worker_that_looks_in_vain_while_the_commit_waits_is_not_the_last_one(whole, monkeypatch):
    asked: list[int] = []
    reserve = accepting.ledger.reserve

    def held(*given: Any, **more: Any) -> Any:
        assert whole.signals.announced.wait(20)
        whole.signals.early[0].result(20)  # it has looked, and found nothing
        asked.append(len(whole.engine.calls))
        return reserve(*given, **more)

    monkeypatch.setattr(accepting.ledger, "reserve", held)
    assert whole.post(BODY).status_code == 200
    assert asked == [0]
    assert len(whole.engine.calls) == 1
