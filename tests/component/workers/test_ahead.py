"""The images of a small request are staged while its step is claimed, and the job ends as it would have ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO, Any

import pytest
from sqlalchemy import update

from pipeline.errors import Transient
from storage import schema
from storage.job import closing
from storage.job.accepting import STAGED_AHEAD
from storage.queue import steps
from storage.queue.ringing import Ring
from storage.redis.messages import Message
from tests.fakes.images import fake_decode
from tests.harness import Harness, b64, running
from tests.rows import claimed, end_state, eventually, job_row, quick_folder, step_ids, step_row
from workers.run import run_message, run_step

BODY = {"inputMethod": "base64", "prompt": "p", "images": [b64(b"img0"), b64(b"none"), b64(b"img2")]}
RECORDS = {"granularity": "perImage", "jsonMode": True}


@pytest.fixture
def house(tmp_path) -> Iterator[Harness]:
    with running(tmp_path, workers_count=0) as made, ThreadPoolExecutor(2) as ahead:
        made.work = replace(made.work, ahead=ahead)
        yield made


def accepted(house: Harness, **body: Any) -> tuple[str, Message]:
    """A job that a caller waits for, as far as SQL knows, and its message."""
    job: str = house.post({**BODY, **body}, headers={"Prefer": "respond-async"}).json["id"]
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(waited=True))
    return job, Message(step_ids(house.database, job)[0], input=f"{job}/in-c0")


@pytest.mark.parametrize("body", [{}, RECORDS, {"images": [b64(b"none")]}, {"onError": "fail"}, {"images": [b64(b"img0")] * 2}])
def test_the_job_ends_as_without_it(body):
    ends = []
    for early in (False, True):
        with quick_folder() as folder, running(folder, workers_count=0) as house, ThreadPoolExecutor(1) as ahead:
            house.work = replace(house.work, ahead=ahead if early else None)
            job, message = accepted(house, **body)
            run_message(house.work, message)
            house.drain()
            seen = house.get(f"/api/v1/jobs/{job}").json
            ends.append((end_state(house.database, house.scratch, job), seen["usage"], seen["counts"]))
    assert ends[0] == ends[1]


def test_its_images_are_read_and_decoded_once(house, opened):
    decoded: list[int] = []

    def decode(pictures: Any) -> Any:
        decoded.append(len(pictures))
        yield from fake_decode(pictures)

    house.work = replace(house.work, decode=decode)
    job, message = accepted(house, images=[b64(b"img0")])
    run_message(house.work, message)
    assert job_row(house.database, job).status == "succeeded"
    assert (opened, decoded) == ([f"{job}/in-c0"], [1])
    house.drain()


def test_they_are_staged_before_the_claim_has_ended(house):
    """The claim waits here for the end of the staging."""
    staged = threading.Event()

    def decode(pictures: Any) -> Any:
        yield from fake_decode(pictures)
        staged.set()

    class Late(type(house.database)):  # type: ignore[misc]
        def write(self) -> Any:
            assert staged.wait(20)
            return super().write()

    job, message = accepted(house)
    house.database.__class__ = Late
    house.work = replace(house.work, decode=decode)
    run_message(house.work, message)
    house.database.__class__ = Late.__bases__[0]
    assert job_row(house.database, job).status == "partial"
    house.drain()


@pytest.mark.parametrize("key", ["job_other/in-c0", "job_other/r1-c0-e1", "../etc/passwd", "", "in-c0"])
def test_a_message_that_names_other_images_changes_nothing(house, key):
    job, message = accepted(house)
    run_message(house.work, Message(message.step, input=key))
    assert job_row(house.database, job).status == "partial"
    house.drain()


def test_a_message_that_names_the_images_of_another_job_changes_nothing(house, opened):
    """The other job has an image of the same place, and could be taken for it."""
    other, _ = accepted(house, images=[b64(b"img7")])
    job, message = accepted(house, images=[b64(b"img0")])
    run_message(house.work, Message(message.step, input=f"{other}/in-c0"))
    assert set(opened) == {f"{other}/in-c0", f"{job}/in-c0"}
    assert [picture.data for call in house.engine.calls for picture in call.pictures] == [b"img0"]
    assert job_row(house.database, job).status == "succeeded"
    house.drain()


def test_a_step_does_not_wait_for_what_another_message_began(house, opened):
    """All threads are busy with the images of others, for whatever reason."""
    held, begun = threading.Event(), threading.Semaphore(0)

    def busy() -> None:
        begun.release()
        held.wait(20)

    others = [house.work.ahead.submit(busy) for _ in range(2)]
    assert all(begun.acquire(timeout=20) for _ in others)
    job, message = accepted(house)
    run_message(house.work, message)
    assert job_row(house.database, job).status == "partial"
    held.set()
    house.drain()


def test_a_worker_whose_threads_have_ended_stages_in_its_step(house):
    job, message = accepted(house)
    house.work.ahead.shutdown()
    run_message(house.work, message)
    assert job_row(house.database, job).status == "partial"
    house.drain()


def test_a_job_that_ends_between_claim_and_reading_asks_no_model(house):
    job, message = accepted(house, images=[b64(b"img0")])

    def cancelled() -> None:
        with house.database.write() as connection:
            closing.cancel(connection, job)

    house.work = replace(house.work, load_engine=cancelled)
    run_message(house.work, message)
    assert house.engine.calls == []
    assert job_row(house.database, job).status == "cancelled"
    house.drain()


def test_a_message_without_images_runs_its_step(house):
    job, message = accepted(house)
    run_message(house.work, Message(message.step))
    assert job_row(house.database, job).status == "partial"
    house.drain()


def away(house: Harness, *, times: int) -> None:
    """Scratch can't be read so many times."""
    real, errors = house.scratch.open, iter([Transient("away")] * times)

    def read(key: str) -> IO[bytes]:
        for error in errors:
            raise error
        return real(key)

    house.scratch.open = read


def test_what_went_wrong_is_met_by_the_step(house):
    """Once the store is back, the job ends."""
    job, message = accepted(house)
    away(house, times=2)
    run_message(house.work, message)
    row = step_row(house.database, message.step)
    assert (row.state, row.tries) == ("ready", 0)
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).values(not_before=0))
    house.drain()
    assert job_row(house.database, job).status == "partial"


def test_if_only_the_early_reading_fails_the_step_reads_again(house, opened):
    job, message = accepted(house)
    away(house, times=1)
    run_message(house.work, message)
    assert job_row(house.database, job).status == "partial"
    assert opened == [f"{job}/in-c0"]
    house.drain()


def test_a_step_that_was_claimed_before_stages_by_itself(house, opened):
    job, message = accepted(house)
    claimed(house.database, message.step)
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).values(lease_until=0))
        assert steps.reclaim_expired(connection) == 1
    run_message(house.work, message)
    assert opened.count(f"{job}/in-c0") == 2
    house.drain()
    assert job_row(house.database, job).status == "partial"


def test_a_step_that_is_not_due_is_left_alone(house):
    job, message = accepted(house)
    run_step(house.work, message.step)
    run_message(house.work, message)
    house.drain()
    assert job_row(house.database, job).status == "partial"


def test_a_worker_that_stops_begins_nothing(house, opened):
    job, message = accepted(house)
    house.work.stopping.set()
    run_message(house.work, message)
    assert opened == []
    house.work.stopping.clear()
    house.drain()
    assert job_row(house.database, job).status == "partial"


def test_the_front_door_names_the_images_of_a_small_request_only(tmp_path):
    rung: list[Ring] = []
    with running(tmp_path, workers_count=1) as house:
        ring = house.signals.ring
        house.signals.ring = lambda rings: (rung.extend(those := list(rings)), ring(those))
        small, large = b64(b"img0"), b64(b"img0".ljust(STAGED_AHEAD, b"0"))
        url = house.page("https://pictures.example/1", b"img1")
        for body in (
            {"images": [small]},
            {"images": [large]},
            {"inputMethod": "url", "images": [url]},
            {"images": [small, small], "imagesPerCall": 1},
        ):
            answer = house.post({"inputMethod": "base64", "prompt": "p", **body})
            assert answer.status_code == 200, answer.json
        assert house.post({**BODY, "images": [small]}, headers={"Prefer": "respond-async"}).status_code == 202
        eventually(lambda: not list(house.scratch.list("")))
    first, *others = [each for each in rung if each.waited]
    assert str(first.input).endswith("/in-c0")
    assert {each.input for each in (*others, *(each for each in rung if not each.waited))} == {None}
