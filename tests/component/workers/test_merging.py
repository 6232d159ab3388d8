"""Merged answers of several calls, from the door to the answer."""

from __future__ import annotations

import json

import pytest

from pipeline.asking.synthesize import Merged
from pipeline.finalize import NOT_SYNTHESIZED
from pipeline.ports import ModelUnavailable
from pipeline.types import Answer, Finish, Usage
from storage.job import merges
from storage.job.views import job_view
from storage.queue.steps import LostLease
from tests.fakes.engine import FakeEngine
from tests.fakes.gemini import FakeGemini
from tests.gemini_house import gemini_house, numbered_urls
from tests.harness import Harness
from tests.rows import extract_lease, new_account, new_job, stolen

IMAGES = 7


def post(harness: Harness, **fields):
    body = {"inputMethod": "url", "images": harness.urls(IMAGES), "prompt": "p", "imagesPerCall": 2, **fields}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json
    harness.drain()
    return harness.get(job["links"]["self"]).json, harness.get(job["links"]["results"]).json["results"]


@pytest.fixture
def quiet(make_harness):
    return make_harness(workers_count=0)


def document(call, _number):
    if not call.pictures:
        return None
    first = call.pictures[0].number
    return Answer(finish=Finish.COMPLETE, text=json.dumps({"first": first, "pictures": [p.number for p in call.pictures]}))


@pytest.mark.parametrize("merge", ["auto", "concat"])
def test_texts_stand_one_after_the_other_under_their_numbers(quiet, merge):
    _, results = post(quiet, merge=merge)
    assert results.startswith("Images 1 to 2\n1=img0\n2=img1\n\nImages 3 to 4\n")
    assert len(quiet.engine.calls) == 4


def test_with_auto_documents_are_merged_key_by_key_and_with_concat_they_are_kept(make_harness):
    harness = make_harness(engine=FakeEngine(script=document), workers_count=0)
    _, merged = post(harness, jsonMode=True)
    assert json.loads(merged) == {"first": [1, 3, 5, 7], "pictures": [1, 2, 3, 4, 5, 6, 7]}
    _, kept = post(harness, jsonMode=True, merge="concat")
    assert json.loads(kept) == [{"first": n, "pictures": [n, n + 1][: IMAGES + 1 - n]} for n in (1, 3, 5, 7)]


@pytest.mark.parametrize("json_mode", [False, True])
def test_with_synthesize_the_model_makes_one_answer_of_all(quiet, json_mode):
    job, results = post(quiet, merge="synthesize", jsonMode=json_mode)
    assert job["status"] == "succeeded"
    assert job["warnings"] == []
    if json_mode:
        assert [entry["label"] for entry in json.loads(results)] == list(range(1, 8))
    else:
        assert results.splitlines() == [f"{n + 1}=img{n}" for n in range(IMAGES)]
    assert [len(call.pictures) for call in quiet.engine.calls] == [2, 2, 2, 1, 0]
    assert job["usage"]["modelCalls"] == 5
    assert job["usage"]["outputTokens"] == 10


def test_what_fits_in_one_call_is_answered_by_it_alone(quiet):
    post(quiet, merge="synthesize", imagesPerCall=7)
    assert [len(call.pictures) for call in quiet.engine.calls] == [7]


def test_records_are_never_synthesized(quiet):
    _, results = post(quiet, merge="synthesize", granularity="perImage")
    assert len(json.loads(results)) == IMAGES
    assert all(call.pictures for call in quiet.engine.calls)


@pytest.mark.parametrize("json_mode", [False, True])
def test_what_the_model_cannot_make_one_is_put_together_without_it_and_said(make_harness, json_mode):
    def script(call, _number):
        return None if call.pictures else Answer(finish=Finish.TRUNCATED)

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    job, results = post(harness, merge="synthesize", jsonMode=json_mode)
    assert job["status"] == "succeeded"
    assert job["warnings"] == [NOT_SYNTHESIZED]
    if json_mode:
        assert [entry["label"] for entry in json.loads(results)] == list(range(1, 8))
    else:
        assert results.startswith("Images 1 to 2\n")


def test_when_the_model_is_away_it_is_waited_for_and_at_the_deadline_the_job_ends_with_what_it_has(make_harness):
    def script(call, _number):
        return None if call.pictures else ModelUnavailable("429", retry_after=60)

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(4), "prompt": "p", "imagesPerCall": 2, "merge": "synthesize"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json
    harness.drain()
    assert harness.get(job["links"]["self"]).json["status"] == "finalizing"
    harness.make_overdue()
    harness.supervisor.end_overdue()
    harness.drain()
    ended = harness.get(job["links"]["self"]).json
    assert (ended["status"], ended["warnings"]) == ("succeeded", [NOT_SYNTHESIZED])
    assert harness.get(job["links"]["results"]).json["results"].startswith("Images 1 to 2\n")


def test_a_synthesis_that_breaks_the_step_is_gone_without(make_harness):
    def script(call, _number):
        return None if call.pictures else RuntimeError("a bug")

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(4), "prompt": "p", "imagesPerCall": 2, "merge": "synthesize"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json
    harness.drain()
    harness.skip_waits()
    harness.drain()
    ended = harness.get(job["links"]["self"]).json
    assert (ended["status"], ended["warnings"]) == ("succeeded", [NOT_SYNTHESIZED])


def test_a_call_of_the_tree_that_was_paid_for_is_not_made_again_when_the_step_begins_anew(make_harness):
    def script(call, number):
        return ModelUnavailable("429", retry_after=60) if number == 24 else None

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(22), "prompt": "p", "imagesPerCall": 1, "merge": "synthesize"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json
    harness.drain()
    harness.skip_waits()
    harness.drain()
    results = harness.get(job["links"]["results"]).json["results"]
    assert results.splitlines() == [f"{n + 1}=img{n}" for n in range(22)]
    trees = [call.prompt for call in harness.engine.calls if not call.pictures]
    assert len(trees) == 4  # of 20, of 2 (away), of 2, of the two
    assert len(set(trees)) == 3


def test_gemini_makes_one_document_of_many_by_the_real_sdk(tmp_path):
    with FakeGemini() as fake, gemini_house(tmp_path, fake) as house:
        body = {"inputMethod": "url", "images": numbered_urls(house, 45), "prompt": "p", "imagesPerCall": 2}
        answer = house.post({**body, "jsonMode": True, "merge": "synthesize"})
        assert [entry["number"] for entry in json.loads(answer.json["results"])["pictures"]] == list(range(45))
        assert [len(call.numbers) for call in fake.calls].count(0) == 3


def test_what_a_call_of_the_tree_came_to_is_kept_fenced_and_counted(database):
    account = new_account(database)
    job = new_job(database, account)
    lease = extract_lease(database, job, 0)
    with database.write() as connection:
        merges.record_merged(connection, lease, Merged(key="a", text="one", usage=Usage(model_calls=1, input_tokens=7)))
        merges.record_merged(connection, lease, Merged(key="b", text=None, usage=Usage(model_calls=2)))
    with database.read() as connection:
        assert merges.known_merges(connection, job) == {"a": "one", "b": None}
        view = job_view(connection, job, account)
        assert view is not None
        assert (view.usage.model_calls, view.usage.input_tokens) == (3, 7)
    stolen(database, lease)
    with pytest.raises(LostLease), database.write() as connection:
        merges.record_merged(connection, lease, Merged(key="c", text="late", usage=Usage()))
    with database.read() as connection:
        assert "c" not in merges.known_merges(connection, job)
