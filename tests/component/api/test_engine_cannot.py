"""An engine that can't do what is asked says so before a job is made, at every door."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from werkzeug.test import TestResponse

from config.engines import ENGINES
from tests.harness import CREDITS, Harness, b64

RECORD = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
BODY = {"inputMethod": "base64", "images": [b64(b"img one"), b64(b"img two")], "prompt": "p"}


def doors(harness: Harness, body: dict[str, object]) -> list[TestResponse]:
    """The answers to the same request as JSON and as a form, at both POSTs and the estimate."""
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
    del form["images"], form["inputMethod"]
    answers = []
    for path in ("/api/v1/extract-image", "/api/v1/jobs", "/api/v1/extract-image/estimate"):
        files = [(BytesIO(data), f"{number}.png") for number, data in enumerate((b"img one", b"img two"))]
        answers.append(harness.ask("POST", path, json=body, headers={"Prefer": "respond-async"}))
        answers.append(harness.ask("POST", path, data={**form, "images": files}))
    return answers


@pytest.mark.parametrize(
    ("asked", "word"),
    [({"schema": RECORD}, "schema"), ({"schema": json.dumps(RECORD)}, "schema"), ({"merge": "synthesize"}, "synthesize")],
)
def test_what_the_ocr_cannot_do_is_a_400_at_every_door_and_costs_nothing(make_harness, asked, word):
    harness = make_harness(kind=ENGINES["ocr"])
    for answer in doors(harness, {**BODY, **asked}):
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "engine_cannot")
        for said in (word, "GEMINI_API_KEY", "ENGINE=openai"):
            assert said in answer.json["error"]
    assert harness.count_rows("jobs") == 0
    assert harness.balance() == (CREDITS, 0, 0)


@pytest.mark.parametrize(
    "asked",
    [{}, {"jsonMode": True}, {"granularity": "perImage"}, {"schema": {"type": "object", "required": ["text"]}}],
)
def test_what_the_ocr_may_be_able_to_do_is_taken_at_every_door(make_harness, asked):
    harness = make_harness(kind=ENGINES["ocr"], workers_count=0)
    body = {**BODY, **asked}
    assert [answer.status_code for answer in doors(harness, body) if answer.status_code not in {200, 202}] == []
    harness.drain()


@pytest.mark.parametrize("kind", ["gemini", "openai"])
def test_a_model_may_be_asked_for_any_schema(make_harness, kind):
    harness = make_harness(kind=ENGINES[kind], workers_count=0)
    assert harness.ask("POST", "/api/v1/jobs", json={**BODY, "schema": RECORD}).status_code == 202
    harness.drain()


@pytest.mark.parametrize(
    ("kind", "said"), [("ocr", ["detail had", "thinking had"]), ("openai", ["thinking had", 'detail "ultra"']), ("gemini", [])]
)
def test_a_hint_without_effect_is_no_refusal_but_a_warning(make_harness, kind, said):
    harness = make_harness(kind=ENGINES[kind], workers_count=0)
    job = harness.ask("POST", "/api/v1/jobs", json={**BODY, "detail": "ultra", "thinking": "low"}).json
    assert [" ".join(warning.split()[:2]) for warning in job["warnings"]] == said
    harness.drain()
