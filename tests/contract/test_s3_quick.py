"""Puts and gets with few steps of boto3's: they do what boto3's own calls do, and leave all failures to these."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

from config.settings import load_settings
from pipeline.errors import Transient
from storage.account.accounts import random_id
from storage.scratch.open import open_scratch
from storage.scratch.s3 import AT_ONCE, S3Scratch, s3_client
from tests.fakes.odd_s3 import Answer, Asked, fault, odd_s3


def stored(asked: Asked) -> Answer:
    """The answer of an S3 that has stored each object, or is storing it."""
    return Answer(body=b"stored" if asked.method == "GET" else b"")


def test_an_object_of_usual_size_is_put_and_read_without_boto3_s_own_calls(s3):
    called: list[str] = []
    client = s3_client(s3.settings())
    client.meta.events.register("before-call.s3", lambda model, **_: called.append(model.name))
    scratch = S3Scratch(lambda: client, bucket=s3.bucket, prefix=random_id("s3_", 8), own_endpoint=True)
    scratch.put("job_1/a", io.BytesIO(b"x" * AT_ONCE))
    with scratch.open("job_1/a") as file:
        assert file.read() == b"x" * AT_ONCE
    assert called == []
    scratch.put("job_1/a", io.BytesIO(b"x" * (AT_ONCE + 1)))
    with pytest.raises(FileNotFoundError):
        scratch.open("job_1/b")
    assert called == ["PutObject", "GetObject"]


@pytest.mark.parametrize("path", ["", "/", "/behind/a/path", "/behind/a/path/"])
def test_both_ways_ask_for_the_same_url_and_sign_what_they_send(path):
    asked = {}
    for own_endpoint in (True, False):
        with odd_s3(stored) as server:
            settings = server.settings()
            settings = settings.model_copy(update={"s3_endpoint_url": f"{settings.s3_endpoint_url}{path}"})
            scratch = S3Scratch(partial(s3_client, settings), bucket="bucket", prefix="ä b/c~d", own_endpoint=own_endpoint)
            scratch.put("job_1/a", io.BytesIO(b"x"))
            scratch.open("job_1/a").close()
            asked[own_endpoint] = [(one.method, one.path, one.headers["x-amz-content-sha256"], one.body) for one in server.asked]
            assert all("/s3/aws4_request" in one.headers["authorization"] for one in server.asked)
    assert asked[True] == asked[False]


def test_the_endpoint_of_amazon_is_left_to_boto3():
    assert not open_scratch(load_settings({"SCRATCH_URL": "s3://bucket"}))._own_endpoint


@pytest.mark.parametrize("trouble", [ConnectTimeoutError, ReadTimeoutError])
def test_a_server_that_does_not_answer_in_time_is_not_asked_again_at_once(trouble):
    asked: list[Any] = []

    def send(request: Any) -> None:
        asked.append(request)
        raise trouble(endpoint_url=request.url)

    client = SimpleNamespace(
        meta=SimpleNamespace(endpoint_url="http://127.0.0.1:9", events=SimpleNamespace(register=lambda *_: None)),
        _request_signer=SimpleNamespace(sign=lambda *_: None),
        _endpoint=SimpleNamespace(http_session=SimpleNamespace(send=send)),
    )
    scratch = S3Scratch(lambda: client, bucket="bucket", own_endpoint=True)
    with pytest.raises(Transient, match=r"http://127\.0\.0\.1:9"):
        scratch.put("job_1/a", io.BytesIO(b"x"))
    with pytest.raises(Transient):
        scratch.open("job_1/a")
    assert len(asked) == 2


@pytest.mark.parametrize("refused", [fault(503, "SlowDown"), fault(403, "AccessDenied"), Answer(status=307), Answer(status=204)])
def test_what_is_not_a_success_is_asked_again_by_boto3(refused):
    asked: list[Asked] = []

    def answer(one: Asked) -> Answer:
        asked.append(one)
        return refused if len(asked) % 2 else stored(one)

    with odd_s3(answer) as server:
        scratch = open_scratch(server.settings())
        scratch.put("job_1/a", io.BytesIO(b"x"))
        with scratch.open("job_1/a") as file:
            assert file.read() == b"stored"
    assert [one.method for one in asked] == ["PUT", "PUT", "GET", "GET"]


def test_a_page_of_a_web_server_is_not_taken_for_a_stored_object():
    with odd_s3(lambda _: Answer(body=b"<p>Welcome<br>", kind="text/html")) as server, pytest.raises(Transient):
        open_scratch(server.settings()).put("job_1/a", io.BytesIO(b"x"))


def test_a_kept_connection_that_the_server_has_closed_is_no_failure():
    with odd_s3(lambda one: replace(stored(one), headers={"Connection": "close"})) as server:
        scratch = open_scratch(server.settings())
        for _ in range(3):
            scratch.put("job_1/a", io.BytesIO(b"x"))
            with scratch.open("job_1/a") as file:
                assert file.read() == b"stored"
