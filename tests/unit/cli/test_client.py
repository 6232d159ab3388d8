"""The client: what it sends again, what it refuses, and how it sends files."""

from __future__ import annotations

import io
import json
import time

import httpx2
import pytest
from standardwebhooks import Webhook
from werkzeug.formparser import parse_form_data

from cli.client import ApiError, Client, ClientError, File, FileChanged, Unreachable, verify_webhook

JOB = {"id": "job_1", "status": "queued", "links": {}}
BUSY = httpx2.Response(429, json={"error": "busy"}, headers={"Retry-After": "7"})


class Script:
    """Answers each request with the next of `answers`, and keeps what came."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.requests = []
        self.waits = []

    def client(self, **options) -> Client:
        return Client(
            "http://service.example", "key", transport=httpx2.MockTransport(self._answer), sleep=self.waits.append, **options
        )

    def _answer(self, request):
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_request_with_an_idempotency_key_is_sent_again_until_it_is_answered():
    script = Script(httpx2.ReadError("reset"), BUSY, httpx2.Response(503, text="<html>"), httpx2.Response(202, json=JOB))
    assert script.client().create_job(["https://a.example/1"], {"prompt": "p"}, idempotency_key="k").id == "job_1"
    assert {request.headers["Idempotency-Key"] for request in script.requests} == {"k"}
    assert len({request.content for request in script.requests}) == 1
    assert script.waits[1] == 7


def test_a_request_that_may_have_been_accepted_is_not_repeated_without_a_key():
    script = Script(httpx2.ReadError("reset"))
    with pytest.raises(Unreachable, match="was lost"):
        script.client().create_job(["https://a.example/1"], {"prompt": "p"})
    script = Script(httpx2.ConnectError("refused"), httpx2.Response(202, json=JOB))
    assert script.client().create_job(["https://a.example/1"], {"prompt": "p"}).id == "job_1"


def test_a_refusal_is_raised_with_its_code():
    script = Script(httpx2.Response(400, json={"error": "no prompt", "code": "invalid_prompt"}))
    with pytest.raises(ApiError, match="no prompt") as refused:
        script.client().usage()
    assert (refused.value.status, refused.value.code) == (400, "invalid_prompt")


def test_patience_has_an_end_and_each_wait_is_told():
    told = []
    script = Script(*[httpx2.ConnectError("refused")] * 50)
    with pytest.raises(Unreachable, match="refused"):
        script.client(patience=1, on_wait=lambda reason, seconds: told.append(seconds)).usage()
    assert told == script.waits
    assert told


def full(wait="0"):
    body = {"error": "the database is full of your jobs", "code": "account_full"}
    return httpx2.Response(429, json=body, headers={"Retry-After": wait})


def test_a_full_account_is_tried_again_as_the_service_says_and_each_wait_is_told():
    told = []
    script = Script(full(), httpx2.Response(200, json={}))
    script.client(on_wait=lambda reason, seconds: told.append((reason, seconds))).usage()
    assert told == [("the database is full of your jobs", 0.0)]


def test_a_full_account_that_stays_full_is_a_refusal_that_says_what_is_full():
    with pytest.raises(ApiError, match="full of your jobs") as refused:
        Script(full(wait="200")).client(busy_patience=3600).usage()
    assert (refused.value.status, refused.value.code) == (429, "account_full")


def test_files_are_streamed_with_a_known_length(tmp_path):
    path = tmp_path / "ü.png"
    path.write_bytes(b"\x00\r\n--" * 100)
    script = Script(httpx2.Response(202, json=JOB))
    files = [File(name='a/"ü".png', source=path, size=path.stat().st_size), File(name="b", source=b"bytes", size=5)]
    script.client().create_job(files, {"prompt": "1", "customIds": ["a", "b"], "model": None})
    [request] = script.requests
    assert int(request.headers["Content-Length"]) == len(request.content)
    environ = {
        "wsgi.input": io.BytesIO(request.content),
        "CONTENT_TYPE": request.headers["Content-Type"],
        "CONTENT_LENGTH": str(len(request.content)),
        "REQUEST_METHOD": "POST",
    }
    _, form, sent = parse_form_data(environ)
    assert dict(form) == {"prompt": "1", "customIds": '["a", "b"]'}
    found = []
    for file in sent.getlist("images"):
        with file.stream:
            found.append((file.filename, file.read()))
    assert found == [('a/"ü".png', path.read_bytes()), ("b", b"bytes")]


@pytest.mark.parametrize("facts", [{"size": 4}, {"size": 6}, {"size": 5, "sha256": "0" * 64}])
def test_a_file_that_changed_breaks_the_body_off(tmp_path, facts):
    (tmp_path / "a").write_bytes(b"12345")
    script = Script(httpx2.Response(202, json=JOB))
    with pytest.raises(FileChanged):
        script.client().create_job([File(name="a", source=tmp_path / "a", **facts)], {"prompt": "p"}, idempotency_key="k")
    assert script.requests == []


def test_lists_are_read_page_by_page():
    pages = [{"jobs": [{**JOB, "id": str(at)}], "nextCursor": "c/1" if at == 0 else None} for at in range(2)]
    script = Script(*(httpx2.Response(200, json=page) for page in pages))
    assert [job.id for job in script.client().jobs()] == ["0", "1"]
    assert script.requests[1].url.params["cursor"] == "c/1"


def test_waiting_ends_with_the_job():
    seen = []
    states = ["running", "succeeded"]
    script = Script(*(httpx2.Response(200, json={**JOB, "status": state}) for state in states))
    assert script.client().wait("job_1", on_change=seen.append).ended
    assert [job.status for job in seen] == states


def test_a_page_that_is_no_json_is_a_clear_fault():
    with pytest.raises(ClientError, match="Is it an extract-image service"):
        Script(httpx2.Response(200, text="<html>")).client().usage()
    with pytest.raises(ClientError, match="no address"):
        Client("service", "key")


def test_a_webhook_is_believed_only_with_the_right_signature():
    secret, body = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", json.dumps({"type": "job.succeeded"}).encode()
    now = time.time()
    from datetime import UTC, datetime

    signature = Webhook(secret).sign("evt_1", datetime.fromtimestamp(now, UTC), body.decode())
    headers = {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(int(now)), "Webhook-Signature": signature}
    assert verify_webhook(secret, headers, body) == {"type": "job.succeeded"}
    with pytest.raises(ClientError, match="can't be trusted"):
        verify_webhook(secret, headers, body + b" ")
