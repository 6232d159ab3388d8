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

from api.announcing import Announcement
from pipeline.errors import Transient
from pipeline.job_object import AnswerView
from storage import schema
from storage.job import chunks, closing
from storage.job.views import answer_view
from storage.queue.ringing import Ring
from storage.redis.answers import AnswerTo
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
        self.answers: list[AnswerTo] = []
        self._pool = ThreadPoolExecutor(8)

    def ring_early(self, ring: Ring) -> bool:
        message = Message(ring.step, input=ring.input, early=True, answer_to="here")
        self.early.append(self._pool.submit(run_message, self.house.work, message))
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


@contextmanager
def early_house(folder: Path, server: PostgresServer, **settings: str) -> Iterator[Harness]:
    """A service with Postgres, and a worker that stages ahead."""
    signals = EarlySignals()
    with (
        server.database() as url,
        ThreadPoolExecutor(4) as ahead,
        running(folder, workers_count=0, signals=signals, DATABASE_URL=url, **settings) as made,
    ):
        made.work = replace(made.work, ahead=ahead)
        signals.house = made
        yield made


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
def test_a_request_is_answered_and_its_step_is_announced_once(house, body):
    answer = house.post({**BODY, **body})
    assert answer.status_code == 200
    [early] = house.signals.early
    early.result(20)
    assert house.signals.rung.empty()
    house.drain()
    job = house.get("/api/v1/jobs").json["jobs"][0]["id"]
    assert [kind for kind, _ in house.ledger(job)] == ["reserve", "charge", "release"]


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
        refused = house.post(BODY)
        assert refused.status_code == 429
        [early] = house.signals.early
        early.result(20)
        assert house.engine.calls == []
        house.drain()
        assert house.get(f"/api/v1/jobs/{first}").json["status"] == "succeeded"


def test_the_work_is_read_with_the_first_claim_and_only_with_it(house):
    """A later claim may see the chunk as it was before an earlier one was ended."""
    job, step = accepted(house, images=[b64(b"img0"), b64(b"img1")], **RECORDS)
    for epoch in (1, 2):
        with house.database.statements() as connection:
            lease, work = chunks.claim_chunk(connection, step, owner="test", lease_ms=60_000)
        assert lease.epoch == epoch
        assert (work is not None) == (epoch == 1)
        with house.database.write() as connection:
            if work:
                assert replace(work, left=0) == replace(chunks.work_of(connection, lease), left=0)
            run.steps.hand_back(connection, lease, delay_ms=0, counts=False)
    house.drain()
    assert job_row(house.database, job).status == "succeeded"


def test_a_step_of_another_kind_is_claimed_without_work(house):
    job, step = accepted(house)
    run_step(house.work, step)
    [cleanup] = step_ids(house.database, job, "cleanup")
    with house.database.write() as connection:
        connection.execute(
            update(schema.steps_table).where(schema.steps_table.c.id == cleanup).values(state="ready", epoch=0, part=77)
        )
    with house.database.statements() as connection:
        lease, work = chunks.claim_chunk(connection, cleanup, owner="test", lease_ms=60_000)
    assert (lease.kind.value, work) == ("cleanup", None)
    with house.database.write() as connection:
        run.steps.hand_back(connection, lease, delay_ms=0, counts=False)
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
        assert plain(sent.view) == plain(answer_view(connection, job, house.account))
    house.drain()


def plain(view: AnswerView | None) -> Any:
    assert view is not None
    return replace(view, result=replace(view.result, failures=tuple(view.result.failures)))


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


class Doorbell(MemorySignals):
    """Notes what is announced, in order."""

    def __init__(self, *, takes: bool) -> None:
        super().__init__()
        self.takes = takes
        self.heard: list[str] = []

    def ring_early(self, ring: Ring) -> bool:
        self.heard.append(f"early {ring.step}")
        return self.takes

    def ring(self, rings: Any) -> None:
        self.heard += [f"{ring.step}" for ring in rings]


IMAGES = Ring(7, waited=True, input="job_1/in-c0")


@pytest.mark.parametrize(
    ("rings", "takes", "seconds", "heard"),
    [
        ([IMAGES], True, EARLY_SECONDS / 2, ["made", "early 7"]),
        ([IMAGES], True, EARLY_SECONDS, ["made", "early 7", "7"]),
        ([IMAGES], True, 100.0, ["made", "early 7", "7"]),
        ([IMAGES], False, 0.0, ["made", "early 7", "7"]),
        ([Ring(7, waited=True)], True, 0.0, ["made", "7"]),
        ([], True, 0.0, ["made"]),
    ],
)
def test_a_step_is_announced_after_the_commit_unless_a_worker_is_sure_to_find_it(house, rings, takes, seconds, heard):
    bell = Doorbell(takes=takes)
    now = [1000.0]
    announcement = Announcement(replace(house.web, signals=bell), lambda _job: bell.heard.append("made"), clock=lambda: now[0])
    announcement.before_commit("job_1", rings)
    now[0] += seconds
    announcement.after_commit("job_1", rings)
    assert bell.heard == heard


def test_with_sqlite_nothing_is_announced_before_its_commit(tmp_path):
    with running(tmp_path, workers_count=0) as house:
        bell = Doorbell(takes=True)
        announcement = Announcement(replace(house.web, signals=bell), lambda _job: None)
        announcement.before_commit("job_1", [IMAGES])
        announcement.after_commit("job_1", [IMAGES])
        assert bell.heard == ["7"]


def test_the_job_is_not_there_when_its_step_is_announced_early_and_its_waiter_is(house):
    """Whoever takes the message at once must find who waits, and must not find the step."""
    seen: list[tuple[int, int]] = []
    ring_early = house.signals.ring_early

    def looked(ring: Ring) -> bool:
        seen.append((house.count_rows("jobs"), len(house.signals._watches._of)))
        return bool(ring_early(ring))

    house.signals.ring_early = looked
    assert house.post(BODY).status_code == 200
    assert seen == [(0, 1)]
    house.drain()


def test_a_worker_that_takes_the_message_while_the_commit_waits_finds_the_step_after_it(house):
    """The account's row is locked by another transaction for longer than a worker looks."""
    locked, free = threading.Event(), threading.Event()

    def hold() -> None:
        with house.database.write() as connection:
            connection.execute(update(schema.accounts_table).values(name="held"))
            locked.set()
            free.wait(20)

    with ThreadPoolExecutor(2) as others:
        holding = others.submit(hold)
        assert locked.wait(20)
        posted = others.submit(house.post, BODY)
        while not house.signals.early:
            free.wait(0.01)
        house.signals.early[0].result(20)  # the worker has looked, and found nothing
        assert not posted.done()
        free.set()
        holding.result(20)
        step = house.signals.rung.get(timeout=20)  # announced again
        run_step(house.work, step)
        assert posted.result(20).status_code == 200
    house.drain()
