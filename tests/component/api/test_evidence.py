"""What callers ask of evidence, and where they find it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from config.engines import ENGINES
from pipeline.types import Answer, Finish
from tests.fakes.text_reader import FakeTextReader, reading_of_text
from tests.harness import b64
from workers.run import run_step

MEMBERS = {"evidence", "unsupported", "evidenceError", "needsReview"}
BODY = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1")], "prompt": "p"}
ASKED = {**BODY, "granularity": "perImage", "jsonMode": True, "evidence": True, "reviewWhen": ["unsupported", "lowConfidence"]}


@pytest.fixture
def house(make_harness):
    return make_harness()


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"evidence": "yes"}, "invalid_evidence", "true or false"),
        ({"evidence": True}, "invalid_evidence", 'send a schema, or "granularity": "perImage"'),
        ({"evidence": True, "granularity": "merged"}, "invalid_evidence", "a record for each image"),
        ({"granularity": "perImage", "reviewWhen": ["failed"]}, "invalid_review_when", 'reviewWhen needs "evidence": true'),
        ({**ASKED, "reviewWhen": ["always"]}, "invalid_review_when", '"unsupported", "lowConfidence", "failed"'),
        ({**ASKED, "reviewWhen": "failed"}, "invalid_review_when", "an array"),
        ({**ASKED, "reviewWhen": [["failed"]]}, "invalid_review_when", "an array"),
    ],
)
def test_what_evidence_can_not_do_is_refused_by_all_three_posts(house, fields, code, says):
    for path in ("/api/v1/extract-image", "/api/v1/extract-image/estimate", "/api/v1/jobs"):
        refused = house.ask("POST", path, json={**BODY, **fields})
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, code)
        assert says in refused.text.replace('\\"', '"')


def test_the_compatible_answer_has_the_evidence_of_each_image_beside_its_results(house):
    answer = house.post(ASKED)
    assert answer.status_code == 200
    plain = house.post({**BODY, "granularity": "perImage", "jsonMode": True})
    assert {name: value for name, value in answer.json.items() if name != "evidence"} == plain.json
    first, second = answer.json["evidence"]
    assert (first["index"], second["index"], second["customId"]) == (0, 1, None)
    assert second["evidence"]["/saw"]["match"] == "exact"
    assert set(second) == {"index", "customId", *MEMBERS}


def test_the_results_have_it_in_every_form(house):
    job = house.ask("POST", "/api/v1/jobs", json=ASKED).json["id"]
    assert house.get(f"/api/v1/jobs/{job}?wait=20").json["status"] == "succeeded"
    body = house.get(f"/api/v1/jobs/{job}/results").json
    lines = [json.loads(line) for line in house.get(f"/api/v1/jobs/{job}/results?format=jsonl").text.splitlines()]
    listed = house.get(f"/api/v1/jobs/{job}/items").json["items"]
    shown = [{name: item[name] for name in MEMBERS} for item in listed]
    assert [{name: each[name] for name in MEMBERS} for each in body["evidence"]] == shown
    assert [{name: line[name] for name in MEMBERS} for line in lines] == shown
    csv = house.get(f"/api/v1/jobs/{job}/results?format=csv").text
    assert csv.splitlines()[0].lstrip("\ufeff") == "index,customId,source,status,code,message,unsupported,saw"


def test_a_form_asks_for_it_too(house):
    fields = {
        "prompt": "p",
        "granularity": "perImage",
        "evidence": "true",
        "reviewWhen": "failed",
        "images": (io.BytesIO(b"img0"), "a.png"),
    }
    job = house.ask("POST", "/api/v1/jobs", data=fields, content_type="multipart/form-data").json["id"]
    asked = house.get(f"/api/v1/jobs/{job}/request").json
    assert (asked["evidence"], asked["reviewWhen"]) == (True, ["failed"])
    assert house.get(f"/api/v1/jobs/{job}?wait=20").json["counts"] == {"total": 1, "succeeded": 1, "failed": 0, "needsReview": 0}
    [item] = house.get(f"/api/v1/jobs/{job}/items").json["items"]
    assert item["evidence"][""]["match"] == "exact"


def test_a_script_that_the_ocr_does_not_read_is_told_as_such_and_never_as_unsupported(make_harness):
    """The pictures come out as look-alikes of Latin letters."""
    house = make_harness(workers_count=0)

    def look_alikes(data: bytes, _: int):
        return reading_of_text(b"Utoro 540.00\nN 118 or 3", doubtful=data == b"img0")

    house.work = replace(house.work, text_reader=FakeTextReader(look_alikes))
    house.engine._script = None
    records = {b"img0": {"seller": "Romashka", "total": 540}, b"img1": {"seller": "Ромашка", "total": 540}}
    house.engine._script = lambda call, _number: answer(call, records)
    job = house.ask("POST", "/api/v1/jobs", json={**ASKED, "imagesPerCall": 1}).json["id"]
    house.drain()
    for item in house.get(f"/api/v1/jobs/{job}/items").json["items"]:
        assert item["unsupported"] == []
        assert item["evidenceError"]["code"] == "script_not_read"
        assert (item["evidence"]["/seller"]["match"], item["evidence"]["/seller"]["reason"]) == ("none", "script_not_read")
        assert item["evidence"]["/total"]["match"] == "equivalent"
        assert item["needsReview"], "by lowConfidence"
    table = house.get(f"/api/v1/jobs/{job}/results?format=csv").text.splitlines()
    assert table[0].endswith("message,unsupported,evidenceError,seller,total")
    assert ",,script_not_read," in table[1]


def answer(call, records):
    said = [{"index": each.number, "result": records[each.data]} for each in call.pictures]
    return Answer(finish=Finish.COMPLETE, text=json.dumps(said))


@pytest.mark.parametrize("given", ["yes", "1", "True"])
def test_a_filter_that_is_neither_true_nor_false_is_refused(house, given):
    job = house.ask("POST", "/api/v1/jobs", json=ASKED).json["id"]
    refused = house.get(f"/api/v1/jobs/{job}/items?needsReview={given}")
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, "invalid_needs_review")


def test_the_records_of_a_job_that_may_become_free_have_no_evidence_before_its_end(make_harness):
    house = make_harness(workers_count=0, IMAGES_PER_CALL="1")
    job = house.ask("POST", "/api/v1/jobs", json={**ASKED, "onError": "fail"}).json["id"]
    run_step(house.work, house.signals.rung.get_nowait())  # stage, extract and ground of the first chunk
    assert house.text_reader.pictures == [b"img0"]
    first = house.get(f"/api/v1/jobs/{job}/items").json["items"][0]
    assert (first["result"], first["evidence"]) == (None, None)
    house.drain()
    assert house.get(f"/api/v1/jobs/{job}/items").json["items"][0]["evidence"]["/saw"]["match"] == "exact"


def test_the_ocr_engine_says_that_it_would_check_itself(make_harness):
    house = make_harness(workers_count=0, kind=ENGINES["ocr"])
    job = house.ask("POST", "/api/v1/jobs", json={**ASKED, "jsonMode": False})
    assert any("evidence" in text for text in job.json["warnings"])
    house.drain()
