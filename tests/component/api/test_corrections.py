"""A person corrects and checks records. The model's records stay, and the exports have the corrected ones."""

from __future__ import annotations

import csv
import io
import json

import pytest
from sqlalchemy import update

from storage import schema
from tests.harness import b64

SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}
BODY = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1")], "prompt": "p"}


@pytest.fixture
def house(make_harness):
    return make_harness(workers_count=0)


def ended(house, body=None, record=None, *, schema_too=True):
    """The id of a job that has ended with this record for each image."""
    asked = {**BODY, "granularity": "perImage", "jsonMode": True, **(body or {})}
    job = house.ask("POST", "/api/v1/jobs", json=asked).json["id"]
    house.drain()
    with house.database.write() as connection:
        images, jobs = schema.images_table, schema.jobs_table
        done = images.c.job == job, images.c.state == "done"
        connection.execute(update(images).where(*done).values(result=record or {"total": 1, "a/b": [1, 2]}))
        if schema_too:
            options = connection.execute(jobs.select().where(jobs.c.id == job)).one().options
            connection.execute(update(jobs).where(jobs.c.id == job).values(options={**options, "schema": SCHEMA}))
    return job


def patch(house, job, body, index=0, **options):
    return house.ask("PATCH", f"/api/v1/jobs/{job}/items/{index}", json=body, **options)


def results(house, job, query=""):
    return house.get(f"/api/v1/jobs/{job}/results?{query}")


def test_a_correction_stands_beside_the_model_s_record_with_who_changed_what(house):
    job = ended(house)
    answer = patch(house, job, {"changes": {"/total": 12.50, "/a~1b/1": "=2+3"}, "checked": True})
    assert answer.status_code == 200
    assert answer.json["result"] == {"total": 1, "a/b": [1, 2]}
    corrections = answer.json["corrections"]
    assert corrections["record"] == {"total": 12.5, "a/b": [1, "=2+3"]}
    changes = [(change["pointer"], change["from"], change["to"]) for change in corrections["changes"]]
    assert changes == [("/total", 1, 12.5), ("/a~1b/1", 2, "=2+3")]
    key = house.key.split("_")[1]
    assert {change["by"] for change in corrections["changes"]} == {corrections["checkedBy"]} == {f"test ({key})"}
    assert house.key not in answer.text
    assert (corrections["checked"], corrections["revision"]) == (True, 1)
    first, second = house.get(f"/api/v1/jobs/{job}/items").json["items"]
    assert first == answer.json
    assert "corrections" not in second


def test_a_record_that_is_set_back_is_no_correction_but_its_changes_stay(house):
    job = ended(house)
    patch(house, job, {"record": {"total": 5}})
    corrections = patch(house, job, {"record": {"total": 1, "a/b": [1, 2]}}).json["corrections"]
    assert "record" not in corrections
    assert [change["pointer"] for change in corrections["changes"]] == ["/total", "/a~1b", "/total", "/a~1b"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"changes": {"/total": "twelve"}}, "/total"),
        ({"record": {"total": None}}, "/total"),
        ({"changes": {"/none/x": 1}}, "/none/x"),
        ({"changes": {"total": 1}}, "total"),
        ({"changes": {"/a~1b/9": 1}}, "/a~1b/9"),
        ({"chekced": True}, "chekced"),
        ({}, "checked"),
        ({"checked": "yes"}, "checked"),
        ({"checked": True, "revision": "1"}, "revision"),
    ],
)
def test_a_correction_that_does_not_fit_is_refused_and_changes_nothing(house, body, named):
    job = ended(house)
    answer = patch(house, job, body)
    assert (answer.status_code, answer.json["code"]) == (400, "correction_invalid")
    assert named in answer.json["error"]
    assert "corrections" not in house.get(f"/api/v1/jobs/{job}/items").json["items"][0]


def test_who_has_not_seen_the_newest_correction_does_not_undo_it(house):
    job = ended(house)
    assert patch(house, job, {"checked": True, "revision": 0}).status_code == 200
    for late in (
        patch(house, job, {"checked": False, "revision": 0}),
        patch(house, job, {"checked": False}, headers={"If-Match": '"0"'}),
    ):
        assert (late.status_code, late.json["code"]) == (409, "correction_conflict")
    assert patch(house, job, {"checked": False}, headers={"If-Match": '"1"'}).json["corrections"]["revision"] == 2


def test_only_the_job_s_account_corrects_and_only_records_of_jobs_that_have_ended(house):
    job = ended(house)
    _, other = house.new_key()
    assert patch(house, job, {"checked": True}, key=other).status_code == 404
    assert patch(house, job, {"checked": True}, index=2).status_code == 404
    merged = house.ask("POST", "/api/v1/jobs", json=BODY).json["id"]
    assert patch(house, merged, {"checked": True}).json["code"] == "not_finished"
    house.drain()
    assert patch(house, merged, {"checked": True}).json["code"] == "no_records"
    house.make_expired()
    assert patch(house, job, {"checked": True}).json["code"] == "results_expired"


def test_the_exports_have_the_corrected_records_unless_those_of_the_model_are_asked_for(house):
    job = ended(house)
    before = {form: results(house, job, f"format={form}").data for form in ("json", "jsonl", "csv")}
    patch(house, job, {"changes": {"/total": 12.5}, "checked": True}, index=1)
    lines = [json.loads(line) for line in results(house, job, "format=jsonl").text.splitlines()]
    assert [line["result"]["total"] for line in lines] == [1, 12.5]
    rows = list(csv.DictReader(io.StringIO(results(house, job, "format=csv").text.removeprefix("\ufeff"))))
    assert [(row["total"], row["checked"]) for row in rows] == [("1", "false"), ("12.5", "true")]
    body = results(house, job).json
    [beside] = body.pop("corrections")
    assert (beside["index"], beside["record"]["total"]) == (1, 12.5)
    assert body == json.loads(before["json"])
    for form, data in before.items():
        assert results(house, job, f"format={form}&corrections=none").data == data
    assert results(house, job, "corrections=some").json["code"] == "invalid_corrections"


def test_images_are_listed_by_whether_they_are_checked(house):
    job = ended(house)
    patch(house, job, {"checked": True}, index=1)

    def listed(query):
        return [item["index"] for item in house.get(f"/api/v1/jobs/{job}/items?{query}").json["items"]]

    assert (listed("checked=true"), listed("checked=false"), listed("")) == ([1], [0], [0, 1])
    assert house.get(f"/api/v1/jobs/{job}/items?checked=x").json["code"] == "invalid_checked"


def test_corrections_count_as_stored_bytes_and_go_with_the_results(house):
    job = ended(house)
    accounts = schema.accounts_table

    def stored():
        with house.database.read() as connection:
            return connection.execute(accounts.select().where(accounts.c.id == house.account)).one().stored_bytes

    patch(house, job, {"checked": True})
    before = stored()
    patch(house, job, {"changes": {"/note": "x" * 10_000}})
    assert stored() - before >= 20_000
    house.make_expired()
    house.supervisor.purge()
    assert stored() < 10_000
    with house.database.read() as connection:
        images = schema.images_table
        assert connection.execute(images.select().where(images.c.job == job)).first().corrections is None


def test_a_retry_keeps_the_corrections_of_images_that_it_does_not_process_again(house):
    job = ended(house, {"images": [b64(b"img0"), b64(b"no picture")], "keepInputsSeconds": 600})
    patch(house, job, {"changes": {"/total": 5}})
    patch(house, job, {"record": {"total": 7}}, index=1)
    assert house.ask("POST", f"/api/v1/jobs/{job}/retry").status_code == 202
    house.drain()
    first, second = house.get(f"/api/v1/jobs/{job}/items").json["items"]
    assert first["corrections"]["record"]["total"] == 5
    assert "corrections" not in second
