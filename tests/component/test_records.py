"""One record for each image, from the door to the answer."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from pipeline.ports import ModelUnavailable
from pipeline.types import Answer, Finish, ItemCode
from storage import schema
from tests.fakes.engine import FakeEngine, answer_text
from tests.harness import b64

SAW = {"type": "object", "properties": {"saw": {"type": "string"}}, "required": ["saw"], "additionalProperties": False}


def body(harness, count: int = 3, **fields):
    return {"inputMethod": "url", "images": harness.urls(count), "prompt": "p", **fields}


def records(answer):
    return {record["index"]: record["result"] for record in json.loads(answer.json["results"])}


@pytest.mark.parametrize("fields", [{}, {"granularity": "perImage"}, {"jsonMode": True}], ids=str)
def test_a_schema_turns_on_one_record_for_each_image(harness, fields):
    answer = harness.post(body(harness, schema=SAW, **fields))
    assert answer.status_code == 200, answer.json
    assert records(answer) == {index: {"saw": f"img{index}"} for index in range(3)}
    assert [call.schema for call in harness.engine.calls] == [SAW]


def test_a_schema_may_come_as_text(harness):
    assert records(harness.post(body(harness, schema=json.dumps(SAW)))) == {i: {"saw": f"img{i}"} for i in range(3)}


def test_a_record_that_does_not_fit_is_asked_for_again_and_then_fails_alone(make_harness):
    def script(call, _number):
        said = json.loads(answer_text(call))
        for record in said:
            if record["result"]["saw"] == "img1":
                record["result"] = {"saw": 7}
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said))

    harness = make_harness(engine=FakeEngine(script=script))
    answer = harness.post(body(harness, schema=SAW))
    assert answer.status_code == 200
    assert records(answer) == {0: {"saw": "img0"}, 2: {"saw": "img2"}}
    [error] = answer.json["errors"]
    assert (error["index"], error["code"]) == (1, "schema_mismatch")
    assert '/saw: 7 is not of type "string"' in error["message"]
    assert answer.json["creditUsage"] == 12
    assert len(harness.engine.calls) == 3
    assert '/saw: 7 is not of type "string"' in harness.engine.calls[1].prompt


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"schema": {"type": "strin"}}, "invalid_schema", "schema can't be used: /type"),
        ({"schema": {"properties": {"a": {"pattern": "(a"}}}}, "invalid_schema", "pattern"),
        ({"schema": {"$ref": "https://schemas.example/a"}}, "invalid_schema", "only a path within the schema"),
        ({"schema": [1]}, "invalid_schema", "not an array"),
        ({"schema": "{"}, "invalid_schema", "not JSON"),
        ({"schema": SAW, "granularity": "merged"}, "invalid_granularity", "leave granularity out"),
        ({"imagesPerCall": 51}, "invalid_images_per_call", "1 to 50"),
        ({"merge": "both"}, "invalid_merge", "synthesize"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once_and_costs_nothing(harness, fields, code, said):
    answer = harness.post(body(harness, **fields))
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, code)
    assert said in answer.json["error"]
    assert harness.count_rows("jobs") == 0
    assert harness.balance() == (100_000, 0, 0)


@pytest.mark.parametrize(("per_call", "sizes"), [(2, [2, 2, 1]), ("3", [3, 2]), (50, [5])])
@pytest.mark.parametrize("granularity", ["perImage", "merged"])
def test_a_request_says_how_many_images_a_call_may_have(harness, per_call, sizes, granularity):
    harness.post(body(harness, 5, granularity=granularity, imagesPerCall=per_call))
    assert sorted((len(call.pictures) for call in harness.engine.calls), reverse=True) == sizes


def test_a_set_that_was_refused_is_not_sent_again_when_the_model_was_away_in_between(make_harness):
    def script(call, number):
        if number in {2, 4}:
            return ModelUnavailable("429", retry_after=0)
        if any(picture.data == b"img1" for picture in call.pictures):
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
        return None

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    job = harness.post(body(harness, 8, granularity="perImage"), headers={"Prefer": "respond-async"}).json
    for _ in range(6):
        harness.skip_waits()
        harness.drain()
    answer = harness.get(job["links"]["results"])
    assert records(answer) == {index: f"img{index}" for index in (0, 2, 3, 4, 5, 6, 7)}
    answered = [call for number, call in enumerate(harness.engine.calls, start=1) if number not in {2, 4}]
    sets = [tuple(picture.data for picture in call.pictures) for call in answered]
    assert len(sets) == len(set(sets))
    with harness.database.read() as connection:
        assert connection.scalars(select(schema.chunks_table.c.progress)).all() == [None]


def test_a_bad_image_among_the_records_fails_alone(harness):
    images = [b64(b"img a"), b64(b"none"), b64(b"img c")]
    answer = harness.post({"inputMethod": "base64", "images": images, "prompt": "p", "schema": SAW})
    assert records(answer) == {0: {"saw": "img a"}, 2: {"saw": "img c"}}
    assert [error["code"] for error in answer.json["errors"]] == ["unsupported_format"]
