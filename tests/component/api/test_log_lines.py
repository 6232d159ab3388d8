"""A refused request and a failed job leave one line each, which holds no key, no prompt and no path of a URL."""

from __future__ import annotations

import pytest
import structlog
from structlog.testing import LogCapture

from pipeline.ports import Cause, ModelUnavailable
from tests.fakes.engine import FakeEngine
from tests.harness import b64

SECRET = "a-secret-word"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def lines():
    capture = LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(processors=before)


def of(lines, event):
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "account"),
    [
        ("POST", "/api/v1/extract-image", {"inputMethod": "url", "prompt": SECRET}, "invalid_image_count", True),
        ("POST", "/api/v1/jobs", {"inputMethod": "x", "images": [SECRET], "prompt": SECRET}, "invalid_input_method", True),
        ("GET", "/api/v1/jobs/job_none", None, "not_found", True),
        ("GET", f"/{SECRET}", None, "not_found", True),
    ],
)
def test_a_refused_request_leaves_one_line(harness, lines, method, path, body, code, account):
    answer = harness.ask(method, path, json=body)
    [line] = of(lines, "request_refused")
    assert line["code"] == answer.headers["X-Error-Code"]
    assert (line["status"], line["request"]) == (answer.status_code, answer.headers["X-Request-Id"])
    assert line["account"] == harness.account
    assert SECRET not in str(lines)


def test_a_refused_key_is_not_in_the_line(harness, lines):
    harness.get("/api/v1/jobs", key=f"xim_{SECRET}")
    [line] = of(lines, "request_refused")
    assert (line["code"], "account" in line) == ("unauthorized", False)
    assert SECRET not in str(lines)


def test_a_failed_job_leaves_one_line(harness, lines):
    urls = [*harness.urls(1), f"https://gone.example/{SECRET}?signature={SECRET}"]
    answer = harness.post({"inputMethod": "url", "images": urls, "prompt": SECRET, "onError": "fail"})
    assert answer.status_code == 400
    [ended] = of(lines, "job_failed")
    assert (ended["code"], ended["log_level"]) == ("fetch_failed", "warning")
    assert (ended["request"], ended["account"]) == (answer.headers["X-Request-Id"], harness.account)
    assert ended["job"].startswith("job_")
    assert SECRET not in str(lines)


def test_a_request_that_ends_because_its_model_cannot_be_asked_is_one_line_with_its_code(make_harness, lines):
    refused = ModelUnavailable("HTTP 401", retry_after=30, notice="Bad key.", cause=Cause.ACCOUNT)
    harness = make_harness(engine=FakeEngine(script=lambda *_: refused))
    answer = harness.post({"inputMethod": "base64", "images": [b64(b"img")], "prompt": SECRET})
    [line] = of(lines, "job_failed")
    assert (line["code"], line["request"]) == ("model_unavailable", answer.headers["X-Request-Id"])
    [told] = of(lines, "request_refused")
    assert (told["status"], told["code"]) == (500, "model_unavailable")
