"""A job's model, from the request to the engine, and what it cost on the job."""

from __future__ import annotations

from pipeline.types import Answer, Detail, Finish
from tests.fakes.engine import FakeEngine


def test_what_a_request_says_of_its_model_reaches_every_call(make_harness):
    harness = make_harness(workers_count=0)
    wanted = {"model": "fake-2", "fallbackModels": ["fake-3"], "detail": "medium"}
    body = {"inputMethod": "url", "images": harness.urls(2), "prompt": "p", **wanted}
    assert harness.post(body, headers={"Prefer": "respond-async"}).status_code == 202
    harness.drain()
    [call] = harness.engine.calls
    assert (call.model, call.fallback_models, call.detail, call.waited) == ("fake-2", ("fake-3",), Detail.MEDIUM, False)


def test_a_call_whose_caller_waits_says_so(harness):
    harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"})
    assert [(call.model, call.waited) for call in harness.engine.calls] == [("fake-1", True)]


def test_a_model_that_is_not_allowed_is_refused_at_the_door(harness):
    answer = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p", "model": "fake-9"})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "invalid_model")
    assert "fake-2" in answer.json["error"]
    assert harness.count_rows("jobs") == 0


def test_a_job_shows_what_its_calls_used_and_cost_and_which_versions_answered(make_harness):
    def script(call, number):
        return Answer(
            finish=Finish.COMPLETE, text="t", input_tokens=100, output_tokens=7, nanodollars=1_500_000, model_version=f"v{number}"
        )

    harness = make_harness(engine=FakeEngine(script=script), MERGED_PER_CALL="1", workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(2), "prompt": "p"}
    job = harness.post(body, headers={"Prefer": "respond-async"}).json["id"]
    harness.drain()
    usage = harness.get(f"/api/v1/jobs/{job}").json["usage"]
    assert usage.pop("modelVersion") in {"v1, v2", "v2, v1"}
    assert usage == {
        "credits": 12,
        "modelCalls": 2,
        "inputTokens": 200,
        "outputTokens": 14,
        "cacheHits": 0,
        "money": 0.003,
    }
