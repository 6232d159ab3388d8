"""Each request has one id, by which it can be followed from the front door to the webhook."""

from __future__ import annotations

import functools
import re

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests.harness import URL, b64, running

BODY = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}
ASYNC = {"Prefer": "respond-async"}
MADE = re.compile(r"req_[A-Za-z0-9]{16,}")


def test_one_request_s_log_lines_are_found_by_its_id_from_the_front_door_to_the_webhook(tmp_path):
    with running(tmp_path, workers_count=0) as house, capture_logs([merge_contextvars]) as lines:
        hooked = {**BODY, "webhookUrl": "https://hooks.example/extract"}
        house.post(BODY, headers={**ASYNC, "X-Request-Id": "another"})
        answer = house.post(hooked, headers={**ASYNC, "X-Request-Id": "order-4711"})
        house.drain()
    assert answer.headers["X-Request-Id"] == "order-4711"
    followed = [line for line in lines if line.get("request") == "order-4711"]
    assert {line["job"] for line in followed} == {answer.json["id"]}
    told = [(line["event"], line.get("kind")) for line in followed]
    assert told[0] == ("job_accepted", None)
    assert {kind for event, kind in told if event == "step_done"} == {"stage", "extract", "finalize", "cleanup", "webhook"}
    assert ("webhook_delivered", "webhook") in told
    assert {line["request"] for line in lines if "job" in line} == {"another", "order-4711"}


def test_what_is_tried_again_carries_the_id_of_the_request_that_asked_for_it(tmp_path):
    with running(tmp_path, workers_count=0) as house:
        images = [house.page("https://pictures.example/1"), "https://pictures.example/none"]
        job = house.post({**BODY, "inputMethod": "url", "images": images}, headers=ASYNC).json["id"]
        house.drain()
        house.page(images[1])
        sent = {"Authorization": f"Bearer {house.key}", "X-Request-Id": "once-more"}
        with capture_logs([merge_contextvars]) as lines:
            assert house.client.post(f"/api/v1/jobs/{job}/retry", headers=sent).status_code == 202
            house.drain()
    assert {line["request"] for line in lines if line.get("job") == job} == {"once-more"}
    assert "finalize" in {line.get("kind") for line in lines}


def test_a_fault_of_ours_is_logged_with_the_request_s_id(harness):
    @functools.wraps(harness.app.view_functions["jobs.show"])
    def broken(job):
        raise ValueError("a mistake of ours")

    harness.app.view_functions["jobs.show"] = broken
    with capture_logs([merge_contextvars]) as lines:
        answer = harness.get("/api/v1/jobs/job_1")
    assert answer.status_code == 500
    assert [line["request"] for line in lines if line["event"] == "request_failed"] == [answer.headers["X-Request-Id"]]


@pytest.mark.parametrize("path", [URL, "/healthz", "/api/v1/jobs/none", "/nothing", "/openapi.json"])
def test_every_answer_has_an_id_of_its_own(harness, path):
    ids = [harness.client.get(path).headers["X-Request-Id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert all(MADE.fullmatch(made) for made in ids)


@pytest.mark.parametrize("sent", ["", " ", "a b", "x" * 129, '"', "é", "a\tb", "<b>"])
def test_an_id_that_has_no_place_in_a_log_is_replaced(harness, sent):
    assert MADE.fullmatch(harness.client.get("/healthz", headers={"X-Request-Id": sent}).headers["X-Request-Id"])


@pytest.mark.parametrize("sent", ["4d1b0f6e-6a0c-4f0e-9f61-2f7b8a4f3f11", "Root=1-67891233-abcdef012345678912345678", "x" * 128])
def test_an_id_in_the_spelling_of_others_is_kept(harness, sent):
    assert harness.client.get("/healthz", headers={"X-Request-Id": sent}).headers["X-Request-Id"] == sent
