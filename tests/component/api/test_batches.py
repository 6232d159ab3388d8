"""Names of jobs, batches of jobs, and the filters of the list of jobs."""

from __future__ import annotations

import pytest

from tests.harness import running

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("batches"), workers_count=0) as made:
        yield made


def make(house, **fields):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", **fields}
    answer = house.ask("POST", JOBS, json=body)
    assert answer.status_code == 202, answer.json
    house.drain()
    return answer.json["id"]


def listed(house, **query):
    answer = house.ask("GET", JOBS, query_string=query)
    assert answer.status_code == 200, answer.json
    return [job["id"] for job in answer.json["jobs"]]


def test_a_job_shows_its_name_and_its_batch(house):
    job = make(house, name="  Receipts of May ", batch="b1")
    shown = house.ask("GET", f"{JOBS}/{job}").json
    assert (shown["name"], shown["batch"]) == ("Receipts of May", "b1")
    plain = house.ask("GET", f"{JOBS}/{make(house)}").json
    assert (plain["name"], plain["batch"]) == (None, None)


def test_a_batch_lists_its_jobs_alone_newest_first(house):
    first, second = make(house, batch="two parts"), make(house, batch="two parts")
    make(house, batch="two")
    assert listed(house, batch="two parts") == [second, first]
    assert listed(house, batch="none such") == []


def test_jobs_are_found_by_a_part_of_their_name_their_id_or_their_batch(house):
    job = make(house, name="Ferry TICKETS 100%", batch="summer_2026")
    for text in ("tickets", "TICKETS 100%", job[5:15], "mer_20"):
        assert listed(house, q=text) == [job], text
    assert listed(house, q="ferry_tickets") == []  # an underscore stands for itself


def test_jobs_are_listed_by_the_day_they_were_made(house):
    job = make(house, batch="days")
    made = house.ask("GET", f"{JOBS}/{job}").json["createdAt"]
    assert listed(house, batch="days", **{"from": made[:10]}) == [job]
    assert listed(house, batch="days", **{"from": made}) == [job]
    assert listed(house, batch="days", to=made) == []
    assert listed(house, batch="days", to="2100-01-01T00:00:00+02:00") == [job]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"from": "yesterday"}, "invalid_time"),
        ({"to": "2026-13-01"}, "invalid_time"),
        ({"to": "9" * 5000}, "invalid_time"),
        ({"q": "x" * 201}, "invalid_filter"),
        ({"q": "\x00"}, "invalid_filter"),
        ({"batch": "x" * 65}, "invalid_filter"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(house, query, code):
    answer = house.ask("GET", JOBS, query_string=query)
    assert (answer.status_code, answer.json["code"]) == (400, code)


@pytest.mark.parametrize("fields", [{"name": "x" * 201}, {"name": 7}, {"batch": "x" * 65}, {"batch": ["b"]}, {"name": "\x00"}])
def test_a_name_or_a_batch_that_cannot_be_kept_is_refused(house, fields):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", **fields}
    answer = house.ask("POST", JOBS, json=body)
    assert (answer.status_code, answer.json["code"]) == (400, f"invalid_{next(iter(fields))}")
