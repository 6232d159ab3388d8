"""Open jobs whose scratch objects are gone, as after a restore into an empty machine, end with an outcome for each image."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import Answer, Finish, ItemCode
from storage import schema
from storage.job import lost
from storage.queue.steps import LostLease
from tests.fakes.engine import FakeEngine
from tests.harness import CREDITS, b64, running
from tests.rows import claimed, step_ids, stolen
from workers.run import LOST, run_lease


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="3") as started:
        yield started


def accepted(house, images, **fields):
    method = "url" if images[0].startswith("http") else "base64"
    body = {"inputMethod": method, "images": images, "prompt": "p", "granularity": "perImage", **fields}
    return house.ask("POST", "/api/v1/jobs", json=body).json["id"]


def run_one(house, step):
    """Runs the step, and leaves those that follow it to others. So no thread keeps what it has staged."""
    assert run_lease(house.work.for_one_step(), claimed(house.database, step)) == []


def stage_all(house, job):
    for step in step_ids(house.database, job):
        run_one(house, step)


def lose(house, part=""):
    """Deletes the scratch objects whose key has `part`."""
    house.scratch.delete([key for key in house.scratch.list("") if part in key])


def finish(house, job):
    """Works until the job has ended. Waits that steps make are skipped."""
    for _ in range(20):
        house.skip_waits()
        house.drain()
        shown = house.get(f"/api/v1/jobs/{job}").json
        if shown["finishedAt"]:
            return shown
    raise AssertionError("the job does not end")


def items(house, job):
    return house.get(f"/api/v1/jobs/{job}/items").json["items"]


def test_images_given_by_url_are_fetched_again(house):
    job = accepted(house, house.urls(5))
    stage_all(house, job)
    lose(house)
    ended = finish(house, job)
    assert (ended["status"], ended["usage"]["credits"], ended["usage"]["modelCalls"]) == ("succeeded", 15, 2)
    assert [item["result"] for item in items(house, job)] == [f"img{n}" for n in range(5)]
    assert house.balance() == (CREDITS - 15, 0, 15)


def test_uploaded_images_that_are_gone_fail_with_a_stable_code_and_cost_nothing(house):
    job = accepted(house, [b64(b"img0"), b64(b"img1")])
    lose(house)
    assert finish(house, job)["status"] == "failed"
    assert {(item["code"], item["message"]) for item in items(house, job)} == {(ItemCode.INTERNAL_ERROR.value, LOST)}
    assert house.balance() == (CREDITS, 0, 0)


def test_uploaded_images_that_were_staged_already_fail_in_the_same_way(house):
    job = accepted(house, [b64(b"img0"), b64(b"img1")])
    stage_all(house, job)
    lose(house)
    assert finish(house, job)["status"] == "failed"
    assert {item["message"] for item in items(house, job)} == {LOST}
    assert house.balance() == (CREDITS, 0, 0)


def test_uploaded_images_are_decoded_again_if_only_what_was_staged_is_gone(house):
    job = accepted(house, [b64(b"img0"), b64(b"img1")])
    stage_all(house, job)
    lose(house, "/r1-")
    assert finish(house, job)["status"] == "succeeded"
    assert [item["result"] for item in items(house, job)] == ["img0", "img1"]


def test_what_was_answered_before_stays_and_is_not_asked_again(tmp_path):
    def script(call, number):
        if len(call.pictures) == 3:
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY", input_tokens=3)
        if number == 3:
            return ModelUnavailable("busy", retry_after=1.0, cause=Cause.BUSY)
        return None

    with running(tmp_path, workers_count=0, engine=FakeEngine(script=script), IMAGES_PER_CALL="3") as house:
        job = accepted(house, house.urls(3))
        house.drain()
        asked = [len(call.pictures) for call in house.engine.calls]
        lose(house)
        assert finish(house, job)["status"] == "succeeded"
        assert [item["result"] for item in items(house, job)] == ["img0", "img1", "img2"]
        answered = [picture.data for call in house.engine.calls[len(asked) :] for picture in call.pictures]
        assert sorted(answered) == [b"img1", b"img2"]


def test_a_merged_text_has_every_image_once(house):
    job = accepted(house, house.urls(5), granularity="merged")
    stage_all(house, job)
    lose(house)
    assert finish(house, job)["status"] == "succeeded"
    text = house.get(f"/api/v1/jobs/{job}/results").json["results"]
    assert [text.count(f"img{n}") for n in range(5)] == [1] * 5


def test_a_bucket_that_loses_everything_at_once_ends_the_job_soon(house):
    job = accepted(house, house.urls(2))
    for _ in range(2):
        run_one(house, step_ids(house.database, job)[-1])
        lose(house)
        run_one(house, step_ids(house.database, job, "extract")[-1])
    assert finish(house, job)["status"] == "failed"
    assert {item["message"] for item in items(house, job)} == {LOST}
    assert house.count_rows("chunks") == 2


def test_a_worker_that_lost_its_lease_changes_nothing(house):
    job = accepted(house, house.urls(2))
    stage_all(house, job)
    [step] = step_ids(house.database, job, "extract")
    lease = claimed(house.database, step)
    stolen(house.database, lease)
    with pytest.raises(LostLease), house.database.write() as connection:
        lost.stage_again(connection, lease)
    assert house.count_rows("chunks") == 1
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).values(lease_until=0))
    house.supervisor.reclaim()
