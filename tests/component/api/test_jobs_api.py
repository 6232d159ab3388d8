"""The jobs resource: making, listing, and what became of each image."""

from __future__ import annotations

import json
import threading

import pytest

from storage import schema
from tests.component.api.jobs import JOBS, body, done, make, walk
from tests.fakes.engine import FakeEngine
from tests.harness import CREDITS, running

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2") as made:
        yield made


# Making


def test_a_job_is_a_202_whatever_the_caller_prefers(house):
    for headers in ({}, {"Prefer": "wait=60"}, ASYNC):
        answer = house.ask("POST", JOBS, json=body(house), headers=headers)
        assert answer.status_code == 202
        assert answer.headers["Location"] == answer.json["links"]["self"] == f"{JOBS}/{answer.json['id']}"
        assert answer.json["status"] == "queued"


def test_the_job_comes_to_what_the_compatible_endpoint_would_answer(house):
    job = done(house)
    through_job = house.get(f"{JOBS}/{job}/results").json
    sent = house.post(body(house), headers=ASYNC).json["id"]
    house.drain()
    assert through_job == house.get(f"{JOBS}/{sent}/results").json
    assert through_job["creditUsage"] == 13


@pytest.mark.parametrize("path", [JOBS, "/api/v1/extract-image"])
def test_metadata_and_custom_ids_are_echoed(house, path):
    metadata = {"order": 7, "nested": {"a": [None, "ü"]}}
    sent = body(house, metadata=metadata, customIds=["a", "b", "c"], images=[*house.urls(2), "https://pictures.example/none"])
    job = house.ask("POST", path, json=sent, headers=ASYNC).json["id"]
    house.drain()
    assert house.get(f"{JOBS}/{job}").json["metadata"] == metadata
    assert [item["customId"] for item in house.get(f"{JOBS}/{job}/items").json["items"]] == ["a", "b", "c"]
    [error] = house.get(f"{JOBS}/{job}/results").json["errors"]
    assert (error["index"], error["customId"]) == (2, "c")


def test_an_error_of_a_job_without_custom_ids_has_the_three_members(house):
    job = done(house, images=["https://pictures.example/none", *house.urls(1)])
    [error] = house.get(f"{JOBS}/{job}/results").json["errors"]
    assert set(error) == {"index", "code", "message"}


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"customIds": ["a"]}, 400, "invalid_custom_ids"),
        ({"customIds": "abc"}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "", "c"]}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "b", "c" * 257]}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "b", "\x00"]}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "b", 3]}, 400, "invalid_custom_ids"),
        ({"onError": "stop"}, 400, "invalid_on_error"),
        ({"onError": ["fail"]}, 400, "invalid_on_error"),
        ({"maxCredits": -1}, 400, "invalid_max_credits"),
        ({"maxCredits": True}, 400, "invalid_max_credits"),
        ({"maxCredits": "many"}, 400, "invalid_max_credits"),
        ({"maxCredits": 12}, 402, "max_credits_too_low"),
        ({"maxCredits": "12"}, 402, "max_credits_too_low"),
        ({"metadata": []}, 400, "invalid_metadata"),
        ({"metadata": "x"}, 400, "invalid_metadata"),
        ({"metadata": {"a": "x" * 4096}}, 400, "invalid_metadata"),
        ({"metadata": {"a": json.loads("[" * 20 + "]" * 20)}}, 400, "invalid_metadata"),
    ],
)
@pytest.mark.parametrize("path", [JOBS, "/api/v1/extract-image"])
def test_an_option_that_can_not_be_is_refused_and_costs_nothing(house, path, fields, status, code):
    refused = house.ask("POST", path, json=body(house, **fields))
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (status, code)
    assert house.count_rows("jobs") == 0
    assert house.balance() == (CREDITS, 0, 0)


def test_max_credits_that_are_just_enough_are_taken(house):
    assert (
        house.ask("POST", JOBS, json=body(house, maxCredits=13, customIds=None, metadata=None, onError=None)).status_code == 202
    )


def test_all_or_nothing_fails_with_one_bad_image_costs_nothing_and_shows_no_result(house):
    job = done(house, onError="fail", images=[*house.urls(2), "https://pictures.example/none"])
    shown = house.get(f"{JOBS}/{job}").json
    assert (shown["status"], shown["error"]["code"], shown["usage"]["credits"]) == ("failed", "fetch_failed", 0)
    assert house.balance() == (CREDITS, 0, 0)
    assert house.get(f"{JOBS}/{job}/results").json["results"] == ""
    items = house.get(f"{JOBS}/{job}/items").json["items"]
    assert [item["status"] for item in items] == ["succeeded", "succeeded", "failed"]
    assert [item["result"] for item in items] == [None] * 3
    lines = house.get(f"{JOBS}/{job}/results?format=jsonl").text
    assert "img0" not in lines


def test_all_or_nothing_on_the_compatible_endpoint_is_the_error_of_the_bad_image(make_harness):
    house = make_harness()
    refused = house.post(body(house, onError="fail", images=[*house.urls(2), "https://pictures.example/none"]))
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, "fetch_failed")
    assert "images[2]" in refused.json["error"]


def test_all_or_nothing_costs_as_ever_where_all_was_had(house):
    done(house, onError="fail")
    assert house.balance() == (CREDITS - 13, 0, 13)


# Lists


def test_jobs_are_listed_newest_first_page_by_page(house):
    made = [make(house, 1) for _ in range(5)]
    listed, pages = walk(house, JOBS, "jobs", limit=2)
    assert sorted(job["id"] for job in listed) == sorted(made)
    assert [job["createdAt"] for job in listed] == sorted((job["createdAt"] for job in listed), reverse=True)
    assert pages == 3
    assert listed[0] == house.get(f"{JOBS}/{listed[0]['id']}").json


def test_jobs_of_the_same_millisecond_are_each_listed_once(house):
    made = {make(house, 1) for _ in range(7)}
    house._set(schema.jobs_table, created_at=1_700_000_000_000)
    listed, _ = walk(house, JOBS, "jobs", limit=2)
    assert len(listed) == 7
    assert {job["id"] for job in listed} == made


def test_jobs_are_listed_by_status(house):
    ended = done(house, 1)
    waiting = make(house, 1)
    assert [job["id"] for job in house.get(f"{JOBS}?status=succeeded").json["jobs"]] == [ended]
    assert [job["id"] for job in house.get(f"{JOBS}?status=queued").json["jobs"]] == [waiting]
    assert house.get(f"{JOBS}?status=failed").json == {"jobs": [], "nextCursor": None}


def test_only_the_account_s_own_jobs_are_listed(house):
    make(house, 1)
    _, other = house.new_key()
    assert house.ask("GET", JOBS, key=other).json == {"jobs": [], "nextCursor": None}
    assert house.ask("GET", JOBS, key="none").status_code == 401


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=1001", "invalid_limit"),
        ("limit=-1", "invalid_limit"),
        ("limit=²", "invalid_limit"),
        ("limit=" + "9" * 5000, "invalid_limit"),
        ("status=done", "invalid_status"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=%00", "invalid_cursor"),
        ("cursor=ü", "invalid_cursor"),
        ("cursor=" + "W" * 5000, "invalid_cursor"),
        ("cursor=WyJhIl0", "invalid_cursor"),  # ["a"]
        ("cursor=Wy0xXQ", "invalid_cursor"),  # [-1]
        ("cursor=W3RydWVd", "invalid_cursor"),  # [true]
        ("cursor=WzFd%0A", "invalid_cursor"),
        ("cursor=WzFlOTldCg", "invalid_cursor"),
        ("cursor=WzEsIlx1ZDgwMCJd", "invalid_cursor"),  # [1,"\ud800"]
    ],
)
def test_a_query_that_makes_no_sense_is_refused(house, query, code):
    job = make(house, 1)
    for path in (JOBS, f"{JOBS}/{job}/items"):
        refused = house.get(f"{path}?{query}")
        assert (refused.status_code, refused.json["code"]) == (400, code)


def test_items_say_what_became_of_each_image_page_by_page(house):
    images = [*house.urls(4), "https://pictures.example/none"]
    job = house.ask("POST", JOBS, json=body(house, images=images)).json["id"]
    before, _ = walk(house, f"{JOBS}/{job}/items", "items", limit=2)
    assert [item["status"] for item in before] == ["queued"] * 5
    house.drain()
    after, pages = walk(house, f"{JOBS}/{job}/items", "items", limit=2)
    assert pages == 3
    assert after[1] == {
        "index": 1,
        "customId": None,
        "source": images[1],
        "status": "succeeded",
        "code": None,
        "message": None,
        "attempts": 1,
        "note": None,
        "tier": "standard",
        "result": "img1",
    }
    assert (after[4]["status"], after[4]["code"], after[4]["result"]) == ("failed", "fetch_failed", None)
    assert house.get(f"{JOBS}/{job}/items?status=failed").json == {"items": [after[4]], "nextCursor": None}


@pytest.fixture
def half_done(tmp_path):
    """A service whose model answers the first call, about two images, and keeps the second one waiting until the test ends."""
    asked, go_on = threading.Event(), threading.Event()

    def script(_call, number):
        if number > 1:
            asked.set()
            go_on.wait()

    with running(
        tmp_path, workers_count=1, engine=FakeEngine(script=script), IMAGES_PER_CALL="2", MODEL_CONCURRENCY="1"
    ) as house:
        try:
            yield house, asked
        finally:
            go_on.set()


def results_so_far(house, job):
    return [item["result"] for item in house.get(f"{JOBS}/{job}/items").json["items"]]


def test_items_of_a_running_job_have_their_results_as_they_come(half_done):
    house, asked = half_done
    job = make(house, 4)
    asked.wait()
    assert results_so_far(house, job) == ["img0", "img1", None, None]


def test_results_of_a_running_job_that_may_still_cost_nothing_are_not_shown(half_done):
    house, asked = half_done
    job = make(house, 4, onError="fail")
    asked.wait()
    assert results_so_far(house, job) == [None] * 4
    assert [item["status"] for item in house.get(f"{JOBS}/{job}/items").json["items"][:2]] == ["succeeded"] * 2


def test_results_are_not_shown_while_images_are_not_received_because_all_together_may_be_too_large(half_done):
    house, asked = half_done
    job = make(house, 4)
    asked.wait()
    with house.database.write() as connection:
        images = schema.images_table
        connection.execute(images.update().where(images.c.index == 3).values(state="waiting"))
    assert results_so_far(house, job) == [None] * 4


def test_items_of_an_expired_job_have_no_source_and_no_result(house):
    job = done(house, 1)
    house.make_expired()
    for _ in range(2):
        [item] = house.get(f"{JOBS}/{job}/items").json["items"]
        assert (item["status"], item["source"], item["result"]) == ("succeeded", None, None)
        house.supervisor.purge()
