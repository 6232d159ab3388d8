"""What stands in a model server's place is told apart from the server."""

from __future__ import annotations

import json

import httpx2
import pytest

from pipeline.engines.openai_errors import meaning
from pipeline.engines.reaching import Server, elsewhere, interrupted, is_loopback, mounts
from pipeline.ports import Cause, ModelUnavailable

SERVER = Server(url="http://models.example:8080/v1", setting="OPENAI_BASE_URL")
PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "cause", "words"),
    [
        (301, b"", Cause.ADDRESS, "https://models.example/v1"),
        (302, PAGE, Cause.ADDRESS, "OPENAI_BASE_URL"),
        (307, b"", Cause.ADDRESS, "HTTP 307"),
        (308, b"", Cause.ADDRESS, "HTTP 308"),
        (405, b'{"detail": "Method Not Allowed"}', Cause.ADDRESS, "HTTP 405"),
        (407, PAGE, Cause.ADDRESS, "HTTP_PROXY"),
        (200, PAGE, Cause.ADDRESS, "a web page"),
        (403, PAGE, Cause.ADDRESS, "a web page"),
        (404, PAGE, Cause.ADDRESS, "models.example:8080"),
        (400, b"<html><h1>The plain HTTP request was sent to HTTPS port</h1>", Cause.ADDRESS, "HTTP 400"),
        (502, PAGE, Cause.OVERLOADED, "in its place"),
        (503, PAGE, Cause.OVERLOADED, "in its place"),
        (522, b"error code: 522", Cause.OVERLOADED, "HTTP 522"),
    ],
)
def test_an_answer_of_something_else_is_about_the_address(status, body, cause, words):
    response = httpx2.Response(status, headers={"Location": "https://user:pw@models.example/v1?token=t"})
    told = elsewhere(response, body, SERVER)
    assert told is not None
    assert told.cause is cause
    assert words in told.notice
    assert "pw" not in told.notice
    assert "token" not in told.notice


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"choices": []}'),
        (400, b'{"error": "bad"}'),
        (401, PAGE),
        (413, PAGE),
        (429, PAGE),
        (500, PAGE),
        (502, b'{"error": "overloaded"}'),
        (503, b'{"error": "loading"}'),
    ],
)
def test_an_answer_that_may_be_the_server_s_own_is_left_to_its_reader(status, body):
    assert elsewhere(httpx2.Response(status), body, SERVER) is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (httpx2.ConnectError("[Errno 111] Connection refused"), Cause.AWAY),
        (httpx2.ConnectError("[Errno -2] Name or service not known"), Cause.AWAY),
        (httpx2.ConnectError("[Errno 113] No route to host"), Cause.AWAY),
        (httpx2.ConnectTimeout("timed out"), Cause.AWAY),
        (httpx2.ProxyError("502 Bad Gateway"), Cause.AWAY),
        (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), Cause.ADDRESS),
        (httpx2.ReadTimeout("slow"), Cause.OVERLOADED),
        (httpx2.ReadError("reset"), Cause.OVERLOADED),
        (httpx2.RemoteProtocolError("cut"), Cause.OVERLOADED),
    ],
)
def test_a_server_that_is_not_there_is_told_apart_from_a_connection_that_broke(error, cause):
    told = interrupted(error, SERVER)
    assert told.cause is cause
    if cause is not Cause.OVERLOADED:
        assert "models.example:8080" in told.notice
        assert "OPENAI_BASE_URL" in told.notice


def test_a_proxy_between_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy.example:3128")
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    notice = interrupted(httpx2.ConnectError("refused"), SERVER).notice
    assert "proxy.example:3128" in notice
    assert "NO_PROXY" in notice
    assert "secret" not in notice
    assert Server(url="http://127.0.0.1:1/v1", setting="X").proxy == ""


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://ollama.localhost/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://[::ffff:127.0.0.1]/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example/v1", False),
        ("https://generativelanguage.googleapis.com", False),
    ],
)
def test_only_this_machine_s_own_addresses_go_round_the_proxy(url, loopback):
    assert is_loopback(url) is loopback
    assert bool(mounts(url)) is loopback


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}, Cause.ACCOUNT),
        (400, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, Cause.ACCOUNT),
        (400, {"error": {"message": "Your credit balance is too low to access the API"}}, Cause.ACCOUNT),
        (400, {"error": {"message": "User location is not supported for the API use."}}, Cause.ACCOUNT),
        (403, {"error": {"code": "unsupported_country_region_territory"}}, Cause.ACCOUNT),
        (403, {"error": {"message": "Country, region, or territory not supported"}}, Cause.ACCOUNT),
        (401, {}, Cause.ACCOUNT),
        (402, {"error": "payment required"}, Cause.ACCOUNT),
        (404, {"error": {"message": 'model "llava" not found, try pulling it first'}}, Cause.MODEL),
        (404, {"error": {"message": "No endpoints found that support image input"}}, Cause.MODEL),
        (400, {"error": {"message": "Invalid model name passed in model=llava. Call `/v1/models`"}}, Cause.MODEL),
        (400, {"error": {"message": "litellm.BadRequestError: The model `x` does not exist"}}, Cause.MODEL),
        (404, {"detail": "Not Found"}, Cause.ADDRESS),
        (404, {"error": {"message": "Invalid URL (POST /chat/completions)"}}, Cause.ADDRESS),
        (405, {"detail": "Method Not Allowed"}, Cause.ADDRESS),
        (500, {"error": {"message": "litellm.InternalServerError: OpenAIException - Connection error."}}, Cause.AWAY),
    ],
)
def test_a_refusal_about_the_account_the_model_or_the_address_makes_the_job_wait(status, body, cause):
    told = meaning(status, None, json.dumps(body).encode())
    assert isinstance(told, ModelUnavailable)
    assert told.cause is cause
    assert told.notice.endswith("The job waits until this is mended.")


@pytest.mark.parametrize(
    "message",
    [
        "Provided image is not valid",
        "The model could not process the request: image 3 was not found",
        "the image was not found in the message",
        "something else",
        "the model's maximum context length is 4096 tokens",
        "Invalid schema: no such field",
    ],
)
def test_a_refusal_about_a_picture_or_the_request_does_not(message):
    told = meaning(400, None, json.dumps({"error": {"message": message}}).encode())
    assert not isinstance(told, ModelUnavailable)
