"""Uploaded images that are kept after their job: for a retry, for no longer than was asked, and counted as long as they lie."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import update

from pipeline.errors import Transient
from pipeline.types import Answer, Finish, ItemCode
from storage import schema
from storage.job import accepting, closing, inputs, rounds
from tests.fakes.crashing import Crash, Crashing, crashing_parts
from tests.harness import CREDITS, b64, running
from tests.rows import claimed, job_of, job_row, new_account, set_steps, step_ids
from workers.cleanup import cleanup
from workers.run import run_step

JOBS = "/api/v1/jobs"


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2", MERGED_PER_CALL="2") as made:
        yield made


def post(house, *images: bytes, drain=True, **fields):
    """Posts a job of base64 images, and runs it to its end."""
    body = {"inputMethod": "base64", "images": [b64(image) for image in images], "prompt": "p", "granularity": "perImage"}
    answer = house.ask("POST", JOBS, json={**body, "keepInputsSeconds": 600, **fields})
    assert answer.status_code == 202, answer.json
    if drain:
        house.drain()
    return answer.json["id"]


def retry(house, job):
    return house.ask("POST", f"{JOBS}/{job}/retry")


def broken_at_first(house, images: set[bytes]):
    """Makes the model refuse these images until the returned set is emptied."""
    refused = set(images)

    def script(call, _number):
        if any(picture.data in refused for picture in call.pictures):
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
        return None

    house.engine._script = script
    return refused


@pytest.mark.parametrize("how", ["base64", "files"])
def test_failed_images_of_an_upload_are_retried_while_they_are_kept(house, how):
    refused = broken_at_first(house, {b"img1", b"img4"})
    pictures = [f"img{number}".encode() for number in range(5)]
    if how == "base64":
        job = post(house, *pictures)
    else:
        form = {"images": [(io.BytesIO(data), f"{place}.jpg") for place, data in enumerate(pictures)]}
        form |= {"prompt": "p", "granularity": "perImage", "keepInputsSeconds": "600"}
        job = house.ask("POST", JOBS, data=form, content_type="multipart/form-data").json["id"]
        house.drain()
    shown = house.get(f"{JOBS}/{job}").json
    assert (shown["status"], shown["counts"]["failed"]) == ("partial", 2)
    assert shown["finishedAt"] < shown["inputsExpireAt"] < shown["expiresAt"]
    refused.clear()
    assert retry(house, job).status_code == 202
    assert house.get(f"{JOBS}/{job}").json["inputsExpireAt"] is None
    house.drain()
    assert house.get(f"{JOBS}/{job}").json["status"] == "succeeded"
    records = [item["result"] for item in house.get(f"{JOBS}/{job}/items").json["items"]]
    assert records == [data.decode() for data in pictures]
    assert house.balance() == (CREDITS - 15, 0, 15)
    house.expire_inputs()
    assert house.scratch.objects == {}


def test_without_the_field_uploaded_images_are_deleted_when_the_job_ends(house):
    job = post(house, b"img", b"none", keepInputsSeconds=0)
    assert (house.scratch.objects, house.get(f"{JOBS}/{job}").json["inputsExpireAt"]) == ({}, None)
    refused = retry(house, job)
    assert (refused.status_code, refused.json["code"]) == (409, "inputs_gone")
    assert "keepInputsSeconds" in refused.json["error"]


def test_images_by_url_are_not_kept(house):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "keepInputsSeconds": 600}
    job = house.ask("POST", JOBS, json=body).json["id"]
    house.drain()
    assert house.get(f"{JOBS}/{job}").json["inputsExpireAt"] is None


def test_expired_images_are_deleted_and_can_not_be_retried(house):
    job = post(house, b"none")
    house.expire_inputs()
    assert house.scratch.objects == {}
    assert house.get(f"{JOBS}/{job}").json["inputsExpireAt"] is None
    assert retry(house, job).json["code"] == "inputs_gone"


def test_images_that_have_expired_but_are_not_deleted_yet_can_not_be_retried(house):
    job = post(house, b"none")
    house._set(schema.jobs_table, inputs_expire_at=1)
    assert retry(house, job).json["code"] == "inputs_gone"


def test_a_deleted_job_leaves_no_kept_images(house):
    job = post(house, b"img", b"none")
    assert len(house.scratch.objects) == 1
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    assert house.scratch.objects == {}


def test_images_are_kept_no_longer_than_the_results(make_harness):
    house = make_harness(workers_count=0, RESULT_TTL="60")
    job = house.get(f"{JOBS}/{post(house, b'img')}").json
    assert job["inputsExpireAt"] == job["expiresAt"]


def test_a_service_may_keep_images_for_less_than_a_day(make_harness):
    house = make_harness(workers_count=0, MAX_INPUT_TTL="60")
    body = {"inputMethod": "base64", "images": [b64(b"img")], "prompt": "p"}
    refused = house.ask("POST", JOBS, json={**body, "keepInputsSeconds": 61})
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_keep_inputs_seconds")
    assert "MAX_INPUT_TTL" in refused.json["error"]
    assert house.ask("POST", JOBS, json={**body, "keepInputsSeconds": 60}).status_code == 202
    assert house.ask("POST", JOBS, json={**body, "keepInputsSeconds": 86_401}).json["code"] == "invalid_keep_inputs_seconds"


def test_kept_images_count_as_long_as_they_lie(make_harness):
    house = make_harness(workers_count=0, MAX_SCRATCH_BYTES="1000")
    first = post(house, b"img" + b"x" * 500)
    body = {"inputMethod": "base64", "images": [b64(b"img" + b"x" * 500)], "prompt": "p"}
    refused = house.ask("POST", JOBS, json=body)
    assert (refused.status_code, refused.json["code"]) == (429, "scratch_full")
    metrics = house.client.get("/metrics").text
    assert f"extract_image_kept_bytes {job_row(house.database, first).input_bytes}\n" in metrics
    house.expire_inputs()
    assert house.ask("POST", JOBS, json=body).status_code == 202
    assert "extract_image_kept_bytes 0\n" in house.client.get("/metrics").text


def test_the_kept_images_of_one_account_leave_room_for_others(make_harness):
    house = make_harness(workers_count=0, MAX_SCRATCH_BYTES="1000")
    post(house, b"img" + b"x" * 400)
    small = {"inputMethod": "base64", "images": [b64(b"img")], "prompt": "p"}
    refused = house.ask("POST", JOBS, json={**small, "keepInputsSeconds": 60})
    assert (refused.status_code, refused.json["code"]) == (429, "scratch_full")
    assert "keepInputsSeconds" in refused.json["error"]
    assert house.ask("POST", JOBS, json=small).status_code == 202
    _, other = house.new_key()
    assert house.ask("POST", JOBS, json={**small, "keepInputsSeconds": 60}, key=other).status_code == 202


class AwayScratch:
    """A scratch that deletes nothing while it is away."""

    def __init__(self, inner):
        self.inner, self.away = inner, False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def delete(self, keys):
        if self.away:
            raise Transient("scratch is away")
        self.inner.delete(keys)


def test_an_outage_of_scratch_delays_the_deletion_and_the_bytes_count_until_it_is_done(house):
    job = post(house, b"none")
    scratch = AwayScratch(house.scratch)
    house.work = replace(house.work, scratch=scratch)
    scratch.away = True
    house.expire_inputs()
    assert len(house.scratch.objects) == 1
    assert job_row(house.database, job).inputs_expire_at == 1
    house.supervisor.expire_inputs()  # adds no second step
    scratch.away = False
    house.skip_waits()
    house.drain()
    assert (house.scratch.objects, job_row(house.database, job).inputs_expire_at) == ({}, None)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_call_of_the_deletion_leaves_nothing_behind(house, when):
    for at in range(1, 30):
        job = post(house, b"none", b"none")
        with house.database.write() as connection:  # of this job only: those of the earlier ones are deleted and counted no more
            connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(inputs_expire_at=1))
        house.supervisor.expire_inputs()
        [*_, step] = step_ids(house.database, job, kind="cleanup")
        crashing = Crashing(at, when)
        with suppress(Crash):
            run_step(crashing_parts(house.work, crashing), step)
        set_steps(house.database, step, lease_until=1)
        house.supervisor.reclaim()
        house.drain()
        assert (house.scratch.objects, job_row(house.database, job).inputs_expire_at) == ({}, None)
        if not crashing.fired:
            break
    assert at > 5


def test_a_cleanup_of_an_earlier_round_spares_the_images_that_the_next_round_needs(house):
    job = post(house, b"none", b"none", drain=False)
    house.ask("POST", f"{JOBS}/{job}/cancel")
    cleanups = step_ids(house.database, job, kind="cleanup")
    assert retry(house, job).status_code == 202
    lease = claimed(house.database, cleanups[0])
    commit = cleanup(house.work, lease)
    with house.database.write() as connection:
        commit(connection)
    assert len(house.scratch.objects) == 1
    house.drain()
    assert {item["attempts"] for item in house.get(f"{JOBS}/{job}/items").json["items"]} == {2}


def test_the_sweep_deletes_what_a_kept_job_does_not_need_any_more(house):
    job = post(house, b"img")
    house.scratch.put(f"{job}/r1-c0-e9", io.BytesIO(b"left by a worker that was paused"))
    house.supervisor.sweep()
    assert list(house.scratch.objects) == [f"{job}/in-c0"]


def test_a_retry_after_the_deletion_was_decided_finds_the_images_gone(house):
    job = post(house, b"none")
    house._set(schema.jobs_table, inputs_expire_at=1)
    with house.database.write() as connection:
        assert not inputs.lock_needed(connection, job)
        with pytest.raises(rounds.InputsGone):
            rounds.retry(connection, job, size=lambda _question: 2, max_open=9)
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).values(inputs_expire_at=2))
    house.expire_inputs()


def test_the_rows_of_kept_images_are_the_same_in_each_database(database):
    account = new_account(database)
    keys = {0: "in-0", 1: "in-1"}
    upload = {"input_method": "upload", "sources": ["a", "b", "c"], "inputs": keys, "scratch_bytes": 5, "input_bytes": 5}
    new = replace(job_of(account, images=3, chunk=2), keep_ms=60_000, **upload)

    def accept(job, most):
        with database.write() as connection:
            accepting.accept(connection, job, max_open=9, max_scratch=most)

    accept(new, 100)
    with database.write() as connection:
        closing.cancel(connection, new.id)
    with pytest.raises(accepting.ScratchFull):
        accept(replace(new, id="job_2"), 9)
    with pytest.raises(accepting.KeptFull):
        accept(replace(new, id="job_2", scratch_bytes=0), 9)
    with database.write() as connection:
        assert inputs.lock_needed(connection, new.id)
        assert inputs.expired(connection) == []
        assert inputs.ranges(connection, new.id) == [(0, 2, "in-0"), (2, 3, "in-1")]
        rounds.retry(connection, new.id, size=lambda _question: 2, max_open=9)
    assert job_row(database, new.id).scratch_bytes == 5
    with database.write() as connection:
        closing.cancel(connection, new.id)
        connection.execute(update(schema.jobs_table).values(inputs_expire_at=1))
        assert inputs.delete_expired(connection) == [new.id]
        assert inputs.delete_expired(connection) == []
        assert not inputs.lock_needed(connection, new.id)
        inputs.forget(connection, new.id)
    assert job_row(database, new.id).inputs_expire_at is None
