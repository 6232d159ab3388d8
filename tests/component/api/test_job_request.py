"""A job's owner can read what the job was asked, and ask the same again."""

from __future__ import annotations

from pipeline.request.fields import FIELDS
from tests.harness import b64

SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}
BODY = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p <b>&"}
GIVEN = {
    "jsonMode": True,
    "granularity": "perImage",
    "schema": SCHEMA,
    "merge": "concat",
    "imagesPerCall": 3,
    "cache": True,
    "detail": "low",
    "onError": "fail",
    "deadlineSeconds": 60,
    "evidence": True,
    "reviewWhen": ["unsupported"],
    "keepInputsSeconds": 30,
    "maxMoney": 1.5,
    "metadata": {"order": 1},
}


def test_the_request_is_shown_as_it_was_sent_without_its_images(make_harness):
    house = make_harness(workers_count=0)
    job = house.ask("POST", "/api/v1/jobs", json={**BODY, **GIVEN}).json["id"]
    answer = house.get(f"/api/v1/jobs/{job}/request")
    assert answer.status_code == 200
    asked = answer.json
    assert {name: asked[name] for name in GIVEN} == GIVEN
    assert (asked["inputMethod"], asked["prompt"]) == ("base64", BODY["prompt"])
    assert b64(b"img0") not in answer.text


def test_every_field_but_the_images_and_a_limit_that_is_not_kept_is_shown(make_harness):
    house = make_harness(workers_count=0)
    job = house.ask("POST", "/api/v1/jobs", json=BODY).json["id"]
    asked = house.get(f"/api/v1/jobs/{job}/request").json
    assert set(FIELDS) - set(asked) == {"images", "customIds", "maxCredits"}
    again = {name: value for name, value in asked.items() if value is not None}
    other = house.ask("POST", "/api/v1/jobs", json={**again, "images": BODY["images"]})
    assert other.status_code == 202
    assert house.get(f"/api/v1/jobs/{other.json['id']}/request").json == asked


def test_another_account_and_a_missing_job_get_the_same_404(make_harness):
    house = make_harness(workers_count=0)
    job = house.ask("POST", "/api/v1/jobs", json=BODY).json["id"]
    _, stranger = house.new_key()
    refused = house.get(f"/api/v1/jobs/{job}/request", key=stranger)
    missing = house.get("/api/v1/jobs/job_missing/request")
    assert (refused.status_code, refused.json) == (missing.status_code, missing.json) == (404, missing.json)
