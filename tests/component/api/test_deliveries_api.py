"""The list of an account's webhooks, and one webhook with what was sent and what came back."""

from __future__ import annotations

import json

import pytest

from pipeline.outbound.webhook import WebhookResponse
from tests.harness import running

JOBS, DELIVERIES = "/api/v1/jobs", "/api/v1/deliveries"
HOOK = "https://receiver.example/hook"


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0) as made:
        yield made


def told(house, *, script=None):
    """A job whose webhook was called, by its id."""
    house.deliver.script = script or (lambda _number: WebhookResponse(status=200, text="thanks"))
    answer = house.ask("POST", JOBS, json={"inputMethod": "url", "images": house.urls(1), "prompt": "p", "webhookUrl": HOOK})
    assert answer.status_code == 202, answer.json
    house.drain()
    return answer.json["id"]


def test_the_account_sees_the_deliveries_of_all_its_jobs_newest_first_and_page_by_page(house):
    jobs = [told(house) for _ in range(3)]
    first = house.ask("GET", DELIVERIES, query_string={"limit": 2}).json
    assert [delivery["job"] for delivery in first["deliveries"]] == [jobs[2], jobs[1]]
    second = house.ask("GET", DELIVERIES, query_string={"limit": 2, "cursor": first["nextCursor"]}).json
    assert ([delivery["job"] for delivery in second["deliveries"]], second["nextCursor"]) == ([jobs[0]], None)


def test_deliveries_are_selected_by_their_status(house):
    told(house)
    waiting = told(house, script=lambda _number: WebhookResponse(status=500))
    found = house.ask("GET", DELIVERIES, query_string={"status": "pending"}).json["deliveries"]
    assert [(delivery["job"], delivery["status"]) for delivery in found] == [(waiting, "pending")]
    assert house.ask("GET", DELIVERIES, query_string={"status": "lost"}).json["code"] == "invalid_status"


def test_one_delivery_shows_the_body_that_was_sent_and_how_the_answer_begins(house):
    told(house)
    [listed] = house.ask("GET", DELIVERIES).json["deliveries"]
    shown = house.ask("GET", f"{DELIVERIES}/{listed['id']}").json
    assert shown["body"].encode() == house.deliver.calls[0][2]
    assert [(made["status"], made["response"]) for made in shown["attempts"]] == [(200, "thanks")]
    assert json.loads(shown["body"])["data"]["id"] == shown["job"]


def test_only_the_last_three_attempts_keep_the_answer(house):
    told(house, script=lambda number: WebhookResponse(status=500, text=f"no {number}"))
    for _ in range(4):
        house.skip_waits()
        house.drain()
    [listed] = house.ask("GET", DELIVERIES).json["deliveries"]
    assert [made["response"] for made in listed["attempts"]] == [None, None, "no 2", "no 3", "no 4"]


def test_another_account_sees_no_delivery(house):
    told(house)
    [listed] = house.ask("GET", DELIVERIES).json["deliveries"]
    _, key = house.new_key()
    assert house.get(DELIVERIES, key=key).json["deliveries"] == []
    assert house.get(f"{DELIVERIES}/{listed['id']}", key=key).status_code == 404
