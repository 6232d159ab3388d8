"""A job whose failed images are tried again: each image is fetched, answered and paid for once, whatever happens between."""

from __future__ import annotations

import json

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from pipeline.types import Answer, Finish, ItemCode
from storage import schema
from storage.queue.steps import LostLease
from tests.fakes.engine import FakeEngine, answer_text
from tests.harness import CREDITS, b64, running
from tests.rows import at_once, claimed, eventually, job_row, quick_folder, step_ids, worked_on
from workers.run import OTHER_WORK

JOBS = "/api/v1/jobs"


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2", MERGED_PER_CALL="2") as made:
        yield made


def make(house, images, *, drain=True, **fields):
    body = {"inputMethod": "url", "images": images, "prompt": "p", "granularity": "perImage", **fields}
    answer = house.ask("POST", JOBS, json=body)
    assert answer.status_code == 202
    if drain:
        house.drain()
    return answer.json["id"]


def retry(house, job, **options):
    return house.ask("POST", f"{JOBS}/{job}/retry", **options)


def results(house, job):
    return house.get(f"{JOBS}/{job}/results").json


def rows(house, job):
    """Each round's charge."""
    with house.database.read() as connection:
        columns = schema.ledger_table.c
        query = schema.ledger_table.select().where(columns.job == job, columns.kind == "charge").order_by(columns.round)
        return [row.amount for row in connection.execute(query)]


def test_thirty_failed_images_of_three_thousand_are_fetched_and_charged_and_nothing_else(make_harness):
    house = make_harness(workers_count=0, MERGED_PER_CALL="50", IMAGES_PER_CALL="20")
    images = house.urls(3000)
    missing = {images[place]: house.fetch.pages.pop(images[place]) for place in range(7, 3000, 100)}
    assert len(missing) == 30
    job = make(house, images)
    assert house.get(f"{JOBS}/{job}").json["status"] == "partial"
    assert house.balance() == (CREDITS - 2980, 0, 2980)
    gone = images[7]
    house.fetch.pages |= {url: data for url, data in missing.items() if url != gone}
    house.fetch.fetched.clear()
    asked = len(house.engine.calls)
    answer = retry(house, job)
    assert (answer.status_code, answer.json["status"], answer.json["counts"]["failed"]) == (202, "queued", 0)
    assert house.balance() == (CREDITS - 2980 - 30, 30, 2980)
    house.drain()
    assert sorted(house.fetch.fetched) == sorted(missing)
    assert sum(len(call.pictures) for call in house.engine.calls[asked:]) == 29
    assert house.ledger(job)[3:] == [("reserve", 30), ("charge", 29), ("release", 1)]
    shown = house.get(f"{JOBS}/{job}").json
    assert (shown["status"], shown["counts"], shown["usage"]["credits"]) == (
        "partial",
        {"total": 3000, "succeeded": 2999, "failed": 1},
        3009,
    )
    whole = json.loads(results(house, job)["results"])
    assert [record["index"] for record in whole] == [place for place in range(3000) if place != 7]
    assert [record["result"] for record in whole] == [f"img{place}" for place in range(3000) if place != 7]
    attempts = [json.loads(line)["attempts"] for line in house.get(f"{JOBS}/{job}/results?format=jsonl").text.splitlines()]
    assert sum(attempts) == 3030


def test_a_job_that_failed_whole_pays_the_base_with_the_round_that_processes_an_image(house):
    job = make(house, ["https://pictures.example/0", "https://pictures.example/1"])
    assert retry(house, job).status_code == 202
    house.drain()
    assert rows(house, job) == [0, 0]
    house.urls(1)
    retry(house, job)
    house.drain()
    house.urls(2)
    retry(house, job)
    house.drain()
    assert rows(house, job) == [0, 0, 11, 1]
    assert [record["result"] for record in json.loads(results(house, job)["results"])] == ["img0", "img1"]


@pytest.mark.parametrize("json_mode", [False, True])
def test_merged_answers_come_together_in_image_order(house, json_mode):
    images = house.urls(5)
    late = house.fetch.pages.pop(images[1])
    job = make(house, images, granularity="merged", jsonMode=json_mode)
    house.fetch.pages[images[1]] = late
    retry(house, job)
    house.drain()
    text = results(house, job)["results"]
    said = [entry["saw"] for entry in json.loads(text)] if json_mode else [line for line in text.splitlines() if "=" in line]
    assert len(said) == 5
    assert [saw.rpartition("=")[2] for saw in said] == ["img0", "img1", "img2", "img3", "img4"]


def test_a_job_that_was_cancelled_goes_on_where_it_was(house):
    images = house.urls(3)
    job = make(house, images, drain=False)
    house.ask("POST", f"{JOBS}/{job}/cancel")
    house.drain()
    assert house.fetch.fetched == []
    retry(house, job)
    house.drain()
    assert results(house, job)["imageCount"] == 3
    assert rows(house, job) == [0, 13]


def test_a_round_that_is_cancelled_leaves_what_was_paid_for(house):
    images = [*house.urls(2), "https://pictures.example/none"]
    job = make(house, images)
    before = results(house, job)["results"]
    retry(house, job)
    cancelled = house.ask("POST", f"{JOBS}/{job}/cancel").json
    assert (cancelled["status"], cancelled["usage"]["credits"]) == ("cancelled", 12)
    assert results(house, job)["results"] == before
    assert rows(house, job) == [12, 0]


def test_all_or_nothing_pays_for_all_in_the_round_that_has_all(house):
    images = [*house.urls(2), "https://pictures.example/none"]
    job = make(house, images, onError="fail")
    house.page(images[2])
    assert retry(house, job).status_code == 202
    assert house.balance() == (CREDITS - 13, 13, 0)
    house.drain()
    assert rows(house, job) == [0, 13]
    assert results(house, job)["imageCount"] == 3


def test_a_round_that_fails_as_a_whole_leaves_the_results_before_it_as_they_were(make_harness):
    """It fails in its finalize step, for a reason of the service's own."""
    house = make_harness(workers_count=0, IMAGES_PER_CALL="2")
    images = [*house.urls(2), "https://pictures.example/none"]
    job = make(house, images)
    before = results(house, job)
    house.page(images[2], b"img2")
    retry(house, job)
    [stage] = step_ids(house.database, job)[-1:]
    for kind in ("stage", "extract"):
        step = stage if kind == "stage" else step_ids(house.database, job, kind)[-1]
        lease = claimed(house.database, step)
        with house.database.write() as connection:
            worked_on(house.work, lease)(connection)
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).where(schema.steps_table.c.kind == "finalize").values(tries=2))
    house.database, real = house.database, OTHER_WORK["finalize"]
    OTHER_WORK["finalize"] = lambda _parts, _lease: 1 / 0
    try:
        house.drain()
    finally:
        OTHER_WORK["finalize"] = real
    after = results(house, job)
    assert after["results"] == before["results"]
    assert (after["imageCount"], after["creditUsage"]) == (2, 12)
    assert [error["code"] for error in after["errors"]] == ["internal_error"]
    retry(house, job)
    house.drain()
    assert [record["result"] for record in json.loads(results(house, job)["results"])] == ["img0", "img1", "img2"]
    assert rows(house, job) == [12, 0, 1]


def test_a_cleanup_of_the_round_before_leaves_what_the_next_one_has_staged(house):
    images = [*house.urls(1), "https://pictures.example/none"]
    job = make(house, images, drain=False)
    for step in step_ids(house.database, job):
        lease = claimed(house.database, step)
        with house.database.write() as connection:
            worked_on(house.work, lease)(connection)
    held = claimed(house.database, step_ids(house.database, job, "extract")[0])
    house.ask("POST", f"{JOBS}/{job}/cancel")  # a second cleanup waits until the lease that is held runs out
    retry(house, job)
    lease = claimed(house.database, step_ids(house.database, job)[-1])
    with house.database.write() as connection:
        worked_on(house.work, lease)(connection)
    staged = {key for key in house.scratch.objects if "/r2-" in key}
    assert staged
    house.skip_waits()
    for step in step_ids(house.database, job, "cleanup"):
        worked_on(house.work, claimed(house.database, step))
    assert set(house.scratch.objects) == staged
    assert held.round == 1
    house.drain()
    assert results(house, job)["imageCount"] == 1


def test_a_late_worker_of_the_round_before_changes_nothing(house):
    images = house.urls(1)
    job = make(house, images, drain=False)
    late = claimed(house.database, step_ids(house.database, job)[0])
    commit = worked_on(house.work, late)
    house.ask("POST", f"{JOBS}/{job}/cancel")
    retry(house, job)
    with pytest.raises(LostLease), house.database.write() as connection:
        commit(connection)
    house.drain()
    assert results(house, job)["imageCount"] == 1


def test_each_round_is_told_of(house):
    job = make(house, [*house.urls(1), "https://pictures.example/none"], webhookUrl="https://receiver.example/")
    retry(house, job)
    house.drain()
    sent = [json.loads(body) for _, _, body in house.deliver.calls]
    assert [event["type"] for event in sent] == ["job.partial", "job.partial"]
    assert len({headers["webhook-id"] for _, headers, _ in house.deliver.calls}) == 2


def test_a_round_ends_by_its_own_deadline(house):
    job = make(house, ["https://pictures.example/none"], deadlineSeconds=600)
    retry(house, job)
    row = job_row(house.database, job)
    assert 590_000 < row.deadline_at - row.created_at < 700_000
    house.make_overdue()
    house.supervisor.end_overdue()
    house.drain()
    assert house.get(f"{JOBS}/{job}/items").json["items"][0]["code"] == "deadline_exceeded"


def test_images_that_came_with_the_request_can_not_be_tried_again(house):
    body = {"inputMethod": "base64", "images": [b64(b"none")], "prompt": "p"}
    job = house.ask("POST", JOBS, json=body).json["id"]
    house.drain()
    refused = retry(house, job)
    assert (refused.status_code, refused.json["code"]) == (409, "inputs_gone")


def test_only_what_has_ended_with_a_failure_and_not_expired_is_tried_again(house):
    job = make(house, house.urls(1), drain=False)
    assert (retry(house, job).status_code, retry(house, job).json["code"]) == (409, "not_finished")
    house.drain()
    assert (retry(house, job).status_code, retry(house, job).json["code"]) == (409, "nothing_to_retry")
    failed = make(house, ["https://pictures.example/none"])
    house.make_expired()
    for _ in range(2):
        refused = retry(house, failed)
        assert (refused.status_code, refused.json["code"]) == (410, "results_expired")
        house.supervisor.purge()


def test_a_round_that_has_no_place_changes_nothing(make_harness):
    house = make_harness(workers_count=0, MAX_OPEN_JOBS="1")
    job = make(house, [*house.urls(1), "https://pictures.example/none"])
    before, balance = job_row(house.database, job), house.balance()
    other = make(house, house.urls(1), drain=False)
    refused = retry(house, job)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_open_jobs")
    house.ask("POST", f"{JOBS}/{other}/cancel")
    assert (job_row(house.database, job), house.balance()) == (before, balance)
    assert house.get(f"{JOBS}/{job}/items").json["items"][1]["status"] == "failed"
    assert retry(house, job).status_code == 202


def test_a_round_that_is_not_covered_changes_nothing(house):
    _, key = house.new_key(11)
    body = {"inputMethod": "url", "images": ["https://pictures.example/none"], "prompt": "p"}
    job = house.ask("POST", JOBS, json=body, key=key).json["id"]
    house.drain()
    assert house.ask("POST", JOBS, json={**body, "images": house.urls(1)}, key=key).status_code == 202
    house.drain()
    before = job_row(house.database, job)
    refused = retry(house, job, key=key)
    assert (refused.status_code, refused.json["code"]) == (402, "insufficient_credits")
    assert job_row(house.database, job) == before


def test_of_eight_who_begin_the_next_round_at_once_one_does(database_url: str, tmp_path):
    with running(tmp_path, workers_count=0, DATABASE_URL=database_url) as house:
        job = make(house, [*house.urls(1), "https://pictures.example/none"])
        answers = at_once(*[lambda: retry(house, job)] * 8)
        assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
        house.drain()
        assert rows(house, job) == [11, 0]


def test_deletes_retries_and_work_at_once_end_with_the_job_gone(database_url: str, tmp_path):
    with running(tmp_path, workers_count=3, DATABASE_URL=database_url, IMAGES_PER_CALL="1") as house:
        job = make(house, [*house.urls(6), "https://pictures.example/none"], drain=False)
        at_once(
            lambda: house.ask("DELETE", f"{JOBS}/{job}"),
            lambda: retry(house, job),
            lambda: house.ask("POST", f"{JOBS}/{job}/cancel"),
            lambda: house.ask("DELETE", f"{JOBS}/{job}"),
        )
        eventually(lambda: house.ask("DELETE", f"{JOBS}/{job}").status_code == 404)
        assert house.count_rows("jobs") == house.count_rows("images") == house.count_rows("steps") == 0


@settings(
    max_examples=15,
    database=None,
    phases=[Phase.generate],  # as in test_step_machine.py
)
@given(data=st.data(), images=st.integers(1, 5), each=st.booleans(), all_or_nothing=st.booleans())
def test_over_any_rounds_what_is_paid_is_what_is_there(data, images, each, all_or_nothing):
    """Pictures appear, vanish and are refused between rounds; some rounds are cancelled or too late."""
    refused: set[str] = set()

    def script(call, _number):
        if any(picture.data.decode() in refused for picture in call.pictures):
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
        return Answer(finish=Finish.COMPLETE, text=answer_text(call), input_tokens=1, output_tokens=1)

    with (
        quick_folder() as folder,
        running(folder, workers_count=0, engine=FakeEngine(script=script), IMAGES_PER_CALL="2", MERGED_PER_CALL="2") as house,
    ):
        urls = [f"https://pictures.example/{place}" for place in range(images)]
        job, done, expected = "", set(), []
        for _ in range(data.draw(st.integers(1, 4))):
            there = {place for place in range(images) if data.draw(st.sampled_from([True, True, False]))}
            refused.clear()
            refused.update(f"img{place}" for place in range(images) if data.draw(st.sampled_from([False, False, True])))
            house.fetch.pages = {urls[place]: f"img{place}".encode() for place in there}
            house.fetch.fetched.clear()
            missing = set(range(images)) - done
            if not job:
                options = {"granularity": "perImage" if each else "merged", "onError": "fail" if all_or_nothing else "partial"}
                job = make(house, urls, drain=False, **options)
            else:
                answer = retry(house, job)
                assert answer.status_code == (202 if missing else 409)
                if not missing:
                    break
            if data.draw(st.sampled_from([False, False, False, True])):
                house.ask("POST", f"{JOBS}/{job}/cancel")
                house.drain()
            else:
                house.drain()
                assert sorted(house.fetch.fetched) == sorted(urls[place] for place in missing)
                done |= {place for place in missing if place in there and f"img{place}" not in refused}
            whole = not all_or_nothing or len(done) == images
            expected.append((10 + len(done) if done and whole else 0) - sum(expected))
            assert rows(house, job) == expected
            shown = house.get(f"{JOBS}/{job}").json
            assert shown["counts"] == {"total": images, "succeeded": len(done), "failed": images - len(done)}
            assert shown["usage"]["credits"] == sum(expected)
            if done and whole:
                text = results(house, job)["results"]
                assert all((f"img{place}" in text) == (place in done) for place in range(images))
                assert sum(text.count(f"img{place}") for place in range(images)) == len(done)
