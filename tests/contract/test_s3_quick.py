"""Puts and gets with few steps of boto3's: they do what boto3's own calls do, and leave all failures to these."""

from __future__ import annotations

import io
import re
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from errno import ENOSPC
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
from botocore.credentials import ReadOnlyCredentials
from structlog.testing import capture_logs

from config.settings import load_settings
from pipeline.errors import Transient
from storage.account.accounts import random_id
from storage.scratch.open import open_scratch
from storage.scratch.s3 import AT_ONCE, S3Scratch, s3_client
from storage.scratch.s3_quick import MOST_MISSES, PAUSE_SECONDS, quick_requests
from tests.fakes.odd_s3 import Answer, Asked, fault, odd_s3


class Written(io.BytesIO):
    most = 0

    def write(self, data):
        self.most += len(data)
        return super().write(data)


@contextmanager
def half_a_head(sent):
    """A server that sends this after each request, and ends the connection."""

    def serve(listener):
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(sent)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


LARGE = Answer(body=bytes(range(256)) * 10_000)


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
    assert called == ["PutObject"]


@pytest.mark.parametrize("prefix", ["ä b/c~d", "a//b", "a%41b", "a+b&c=d;e,f", "a'(b)*!"])
def test_all_prefixes_name_the_same_objects_for_libcurl_and_boto3(s3, prefix):
    scratch = S3Scratch(partial(s3_client, s3.settings()), bucket=s3.bucket, prefix=prefix, own_endpoint=True)
    scratch.put("job_1/a", io.BytesIO(b"x"))
    with scratch.open("job_1/a") as file:
        assert file.read() == b"x"
    by_boto3 = S3Scratch(partial(s3_client, s3.settings()), bucket=s3.bucket, prefix=prefix)
    with by_boto3.open("job_1/a") as file:
        assert file.read() == b"x"
    scratch.delete(["job_1/a"])
    with pytest.raises(FileNotFoundError):
        scratch.open("job_1/a")


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


@pytest.mark.parametrize("prefix", [".", "..", "a/../b"])
def test_a_name_with_dots_for_a_folder_is_left_to_boto3(prefix):
    with odd_s3(stored) as server:
        connect = partial(s3_client, server.settings())
        S3Scratch(connect, bucket="bucket", prefix=prefix, own_endpoint=True).put("job_1/a", io.BytesIO(b"x"))
        [asked] = server.asked
    assert asked.path == f"/bucket/{prefix}/job_1/a"


def test_a_key_that_boto3_gets_anew_signs_the_next_request():
    numbers = count(1)
    with odd_s3(stored) as server:
        client = s3_client(server.settings())
        client._request_signer._credentials.get_frozen_credentials = lambda: ReadOnlyCredentials(f"key-{next(numbers)}", "s", "t")
        quick = quick_requests(client, bucket="bucket")
        assert quick.put("job_1/a", b"x")
        assert quick.get("job_1/a", io.BytesIO())
    assert [re.search(r"Credential=([^/]+)/", one.headers["authorization"])[1] for one in server.asked] == ["key-1", "key-2"]
    assert all("x-amz-security-token" in one.headers["authorization"] for one in server.asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status):
    with odd_s3(lambda _: Answer(body=b"<p>Sign in", kind="text/html")) as elsewhere:
        away = {"Location": f"http://127.0.0.1:{elsewhere.port}/sign-in"}
        with odd_s3(lambda _: Answer(status=status, headers=away)) as server:
            quick = quick_requests(s3_client(server.settings()), bucket="bucket")
            into = io.BytesIO()
            assert not quick.put("job_1/a", b"x")
            assert not quick.get("job_1/a", into)
        assert (elsewhere.asked, into.getvalue()) == ([], b"")


@pytest.mark.parametrize(
    ("variables", "quick"),
    [
        ({"HTTP_PROXY": "http://proxy.example:3128"}, False),
        ({"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "127.0.0.1"}, True),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, True),
        ({"ALL_PROXY": "http://proxy.example:3128"}, True),  # boto3 does not know it
    ],
)
def test_what_goes_through_a_proxy_is_left_to_boto3(variables, quick, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with odd_s3(stored) as server:
        requests = quick_requests(s3_client(server.settings()), bucket="bucket")
        assert bool(requests) is quick
        if requests:
            assert requests.put("job_1/a", b"x")
            assert len(server.asked) == 1


def test_a_file_that_can_t_be_written_is_that_file_s_error():
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(ENOSPC, "No space left on device")

    with odd_s3(stored) as server, pytest.raises(OSError, match="No space"):
        quick_requests(s3_client(server.settings()), bucket="bucket").get("job_1/a", Full())


@pytest.mark.parametrize("key", ["key:1", "a/key", "schlüssel"])
def test_a_key_that_libcurl_would_write_in_another_way_is_left_to_boto3(key):
    with odd_s3(stored) as server:
        client = s3_client(server.settings())
        client._request_signer._credentials.get_frozen_credentials = lambda: ReadOnlyCredentials(key, "s", None)
        assert quick_requests(client, bucket="bucket").put("job_1/a", b"x") is None
    assert server.asked == []


@pytest.mark.parametrize(("secret", "token"), [("a\0b", None), ("s", "a\r\nX-Evil: 1")])
def test_a_secret_or_token_that_no_header_can_have_is_boto3_s_to_refuse(secret, token):
    with odd_s3(stored) as server:
        client = s3_client(server.settings())
        client._request_signer._credentials.get_frozen_credentials = lambda: ReadOnlyCredentials("key", secret, token)
        assert not quick_requests(client, bucket="bucket").put("job_1/a", b"x")
    assert server.asked == []


def test_half_a_head_is_no_answer():
    with half_a_head(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n") as endpoint:
        client = s3_client(load_settings({"S3_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}))
        quick = quick_requests(client, bucket="bucket")
        assert quick.put("job_1/a", b"x") is False
        assert quick.get("job_1/a", io.BytesIO()) is False


def test_a_long_error_is_not_read_to_its_end_and_never_reaches_the_file():
    with odd_s3(lambda _: Answer(status=500, body=b"x" * 3_000_000, kind="text/html")) as server:
        into = Written()
        assert quick_requests(s3_client(server.settings()), bucket="bucket").get("job_1/a", into) is False
    assert into.most == 0


def test_an_s3_that_breaks_off_is_asked_again_from_the_start():
    answers = iter([replace(LARGE, cut=1), Answer(body=b"stored anew")])
    with odd_s3(lambda _: next(answers)) as server, open_scratch(server.settings()).open("job_1/a") as file:
        assert file.read() == b"stored anew"


def test_the_endpoint_of_amazon_is_left_to_boto3():
    assert not open_scratch(load_settings({"SCRATCH_URL": "s3://bucket"}))._own_endpoint


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


def test_a_missing_object_takes_one_request_and_keeps_its_connection():
    with odd_s3(lambda one: fault(404, "NoSuchKey") if one.path.endswith("b") else stored(one)) as server:
        scratch = open_scratch(server.settings())
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                scratch.open("job_1/b")
        scratch.open("job_1/a").close()
        assert (len(server.asked), server.connections) == (4, 1)


def test_successes_give_boto3_its_retries_back():
    with odd_s3(lambda one: stored(one) if one.path.endswith("a") else fault(500, "InternalError")) as server:
        client = s3_client(server.settings())
        scratch = S3Scratch(lambda: client, bucket="bucket", own_endpoint=True)

        def attempts() -> int:
            before = len(server.asked)
            with pytest.raises(Transient):
                scratch.delete(["job_1/b"])
            return len(server.asked) - before

        while attempts() == 3:
            continue
        for _ in range(60):
            scratch.put("job_1/a", io.BytesIO(b"x"))
        assert attempts() == 3


def test_a_server_with_ways_of_its_own_is_left_to_boto3_for_a_while():
    with odd_s3(stored) as server:
        now = [0.0]
        client = s3_client(server.settings())
        quick = quick_requests(client, bucket="bucket", clock=lambda: now[0])
        for _ in range(MOST_MISSES - 1):
            quick.put_missed()
        assert quick.put("job_1/a", b"x")
        for _ in range(MOST_MISSES):
            assert quick.get("job_1/a", io.BytesIO())  # puts and gets are counted apart
            quick.put_missed()
        assert not quick.put("job_1/a", b"x")
        assert not quick.get("job_1/a", io.BytesIO())
        assert quick.put("job_1/a", b"x") is None  # nothing was tried, so there is nothing to count
        now[0] = PAUSE_SECONDS
        assert quick.put("job_1/a", b"x")


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.eu-central-1.amazonaws.com",
        "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com",
        "http://localhost/p/../q",
        "http://localhost/a%20b",
        "http://localhost/ä",
    ],
)
def test_an_endpoint_with_rules_of_its_own_is_left_to_boto3(endpoint):
    assert quick_requests(SimpleNamespace(meta=SimpleNamespace(endpoint_url=endpoint)), bucket="bucket") is None


def test_a_client_with_other_parts_is_asked_as_usual():
    with odd_s3(stored) as server, capture_logs() as logs:
        client = s3_client(server.settings())
        assert quick_requests(SimpleNamespace(meta=client.meta), bucket="bucket") is None
    assert [log["event"] for log in logs] == ["no_quick_requests"]
