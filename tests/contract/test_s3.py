"""What the store on S3 promises beside what all stores do: where objects lie, how they are sent, and how it fails."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from config.settings import load_settings
from pipeline.errors import NOT_ALLOWED, PartError, Transient
from pipeline.types import MB
from storage.account.accounts import random_id
from storage.scratch.open import open_scratch
from storage.scratch.s3 import AT_ONCE, S3Scratch, s3_client
from storage.scratch.s3_clock import SKEWED, _Clock
from testbed import S3Server
from tests.fakes.odd_s3 import Answer, Asked, fault, odd_s3
from tests.rows import at_once

ACTIONS = {
    "put": lambda scratch: scratch.put("job_1/a", io.BytesIO(b"x")),
    "put a large one": lambda scratch: scratch.put("job_1/a", io.BytesIO(bytes(65 * MB))),
    "open": lambda scratch: scratch.open("job_1/a"),
    "delete": lambda scratch: scratch.delete(["job_1/a"]),
    "list": lambda scratch: list(scratch.list("job_1/")),
}


@pytest.fixture
def prefix():
    return random_id("s3_", 8)


def failure_of(scratch, action) -> PartError:
    with pytest.raises(PartError) as caught:
        ACTIONS[action](scratch)
    assert not isinstance(caught.value, FileNotFoundError)
    return caught.value


def names(s3: S3Server, prefix: str) -> list[str]:
    """The names of the bucket's objects, as another client sees them."""
    found = s3_client(s3.settings()).list_objects_v2(Bucket=s3.bucket, Prefix=prefix)
    return [each["Key"] for each in found.get("Contents", ())]


def read(scratch, key: str) -> bytes:
    with scratch.open(key) as file:
        return file.read()


# --- where objects lie


@pytest.mark.parametrize("rest", ["", "/", "/deep/down", "/deep/down/"])
def test_objects_lie_below_the_prefix_of_the_url(s3, prefix, rest):
    scratch = open_scratch(s3.settings(prefix + rest))
    ACTIONS["put"](scratch)
    assert names(s3, prefix) == [f"{prefix}{rest.rstrip('/')}/job_1/a"]
    assert list(scratch.list("")) == ["job_1/a"]


def test_stores_with_other_prefixes_in_one_bucket_do_not_see_each_other(s3, prefix):
    first, second = (open_scratch(s3.settings(name)) for name in (prefix, f"{prefix}2"))
    ACTIONS["put"](first)
    assert list(second.list("")) == []
    second.delete(["job_1/a"])
    with pytest.raises(FileNotFoundError):
        second.open("job_1/a")
    assert list(first.list("")) == ["job_1/a"]


def test_what_is_not_ours_below_the_prefix_is_not_listed(s3, prefix):
    scratch = open_scratch(s3.settings(prefix))
    ACTIONS["put"](scratch)
    s3_client(s3.settings()).put_object(Bucket=s3.bucket, Key=f"{prefix}/a note of somebody's", Body=b"x")
    assert list(scratch.list("")) == ["job_1/a"]


def test_the_bucket_itself_can_be_the_store():
    with odd_s3(lambda _: Answer()) as server:
        ACTIONS["put"](open_scratch(server.settings(SCRATCH_URL="s3://bucket")))
        assert server.asked[0].path == "/bucket/job_1/a"


def test_a_second_store_on_the_same_url_sees_the_same_objects(s3, prefix):
    ACTIONS["put"](open_scratch(s3.settings(prefix)))
    assert read(open_scratch(s3.settings(prefix)), "job_1/a") == b"x"


# --- how they are sent


@pytest.mark.parametrize("size", [8 * MB, 8 * MB + 1, 64 * MB, 64 * MB + 1])
def test_objects_of_every_size_come_back_whole(s3, prefix, size):
    scratch = open_scratch(s3.settings(prefix))
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    scratch.put("job_1/a", io.BytesIO(data))
    with scratch.open("job_1/a") as file:
        assert file.seek(0, 2) == size
        file.seek(0)
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(data).digest()
    scratch.delete(["job_1/a"])


class BreaksAt(io.BytesIO):
    """A body whose disk goes away in the middle."""

    def __init__(self, data: bytes, at: int) -> None:
        super().__init__(data)
        self._at = at

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._at:
            raise OSError("the disk it comes from is gone")
        return super().read(size)


@pytest.mark.parametrize("size", [20 * MB, 70 * MB])
def test_a_large_body_that_fails_half_way_leaves_the_old_object_and_no_parts(s3, prefix, size):
    scratch = open_scratch(s3.settings(prefix))
    ACTIONS["put"](scratch)
    with pytest.raises(OSError, match="the disk"):
        scratch.put("job_1/a", BreaksAt(bytes(size), size // 2))
    assert read(scratch, "job_1/a") == b"x"
    unfinished = s3_client(s3.settings()).list_multipart_uploads(Bucket=s3.bucket).get("Uploads", [])
    assert [each["Key"] for each in unfinished if each["Key"].startswith(prefix)] == []


def test_an_upload_that_was_cut_off_is_aborted_when_it_is_old_and_those_of_others_stay(s3, prefix):
    client, place = s3_client(s3.settings()), {"Bucket": s3.bucket}
    cut, foreign = f"{prefix}/job_1/r1-c0", f"{prefix}-other/job_1/r1-c0"
    others = client.create_multipart_upload(**place, Key=foreign)["UploadId"]
    for name in (cut, foreign):
        client.create_multipart_upload(**place, Key=name)
    scratch = open_scratch(s3.settings(prefix))
    assert scratch.abort_uploads(3600) == 0
    assert scratch.abort_uploads(-60) == 1
    left = client.list_multipart_uploads(**place, Prefix=prefix).get("Uploads", [])
    assert {upload["Key"] for upload in left} == {foreign}
    assert others in {upload["UploadId"] for upload in left}
    for upload in left:
        client.abort_multipart_upload(**place, Key=upload["Key"], UploadId=upload["UploadId"])


def test_a_body_stays_open_for_the_one_who_put_it(s3, prefix):
    scratch = open_scratch(s3.settings(prefix))
    for size in (1, 9 * MB, 65 * MB):
        body = io.BytesIO(bytes(size))
        scratch.put("job_1/a", body)
        assert not body.closed
    scratch.delete(["job_1/a"])


def test_requests_name_the_bucket_in_their_path_and_are_signed_for_the_region():
    with odd_s3(lambda _: Answer()) as server:
        endpoint = f"http://localhost:{server.port}"  # of a number no name with the bucket in it can be made
        ACTIONS["put"](open_scratch(server.settings(S3_ENDPOINT_URL=endpoint, AWS_SESSION_TOKEN="token-of-a-test")))
        [asked] = server.asked
    assert asked.headers["host"] == f"localhost:{server.port}"
    assert (asked.method, asked.path, asked.body) == ("PUT", "/bucket/prefix/job_1/a", b"x")
    assert "/eu-central-1/s3/aws4_request" in asked.headers["authorization"]
    assert asked.headers["x-amz-security-token"] == "token-of-a-test"


def test_a_put_sends_no_checksum_that_only_amazon_knows():
    with odd_s3(lambda _: Answer()) as server:
        scratch = open_scratch(server.settings())
        for size in (1, 9 * MB):
            scratch.put("job_1/a", io.BytesIO(bytes(size)))
        assert [name for asked in server.asked for name in asked.headers if name.startswith("x-amz-checksum-")] == []
        assert all("aws-chunked" not in asked.headers.get("content-encoding", "") for asked in server.asked)


def test_only_a_large_body_waits_for_the_server_to_agree_to_it():
    with odd_s3(lambda _: Answer()) as server:
        scratch = open_scratch(server.settings())
        for size in (0, AT_ONCE, AT_ONCE + 1, 9 * MB):
            scratch.put("job_1/a", io.BytesIO(bytes(size)))
        assert [("expect" in asked.headers, len(asked.body)) for asked in server.asked] == [
            (False, 0),
            (False, AT_ONCE),
            (True, AT_ONCE + 1),
            (True, 9 * MB),
        ]


def test_all_threads_share_one_client_that_keeps_its_connections():
    made = []

    def connect(settings):
        made.append(s3_client(settings))
        return made[-1]

    with odd_s3(lambda asked: Answer(body=b"body" if asked.method == "GET" else b"")) as server:
        scratch = S3Scratch(partial(connect, server.settings()), bucket="bucket")

        def work():
            for number in range(10):
                scratch.put(f"job_1/{number}", io.BytesIO(b"body"))
                assert read(scratch, f"job_1/{number}") == b"body"

        assert at_once(*[work] * 6) == [None] * 6
        assert (len(made), len(server.asked)) == (1, 120)
        assert server.connections <= 6


def test_a_service_on_a_folder_never_imports_boto3(tmp_path):
    program = """
import sys, api.wiring, workers.wiring, cli.main
from config.settings import load_settings
from storage.scratch.open import open_scratch
list(open_scratch(load_settings({"SCRATCH_URL": f"file:{sys.argv[1]}"})).list(""))
assert "boto3" not in sys.modules and "botocore" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


# --- bulk deletes


def bulk(*, demands_md5: bool = False, errors: str = ""):
    def answer(asked):
        assert asked.method == "POST"
        if demands_md5:
            digest = base64.b64encode(hashlib.md5(asked.body).digest()).decode()
            if asked.headers.get("content-md5") != digest or any(name.startswith("x-amz-checksum-") for name in asked.headers):
                return fault(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
        return Answer(body=f"<DeleteResult>{errors}</DeleteResult>".encode())

    return answer


def test_a_server_that_demands_content_md5_is_given_it_from_the_second_request_on():
    with odd_s3(bulk(demands_md5=True)) as server:
        scratch = open_scratch(server.settings())
        for _ in range(3):
            scratch.delete(["job_1/a", "job_1/b"])
        assert ["content-md5" in asked.headers for asked in server.asked] == [False, True, True, True]


def test_a_delete_that_is_refused_either_way_is_an_error_and_the_next_one_starts_over():
    with odd_s3(lambda _: fault(400, "MalformedXML")) as server:
        scratch = open_scratch(server.settings())
        for _ in range(2):
            assert "400 MalformedXML" in str(failure_of(scratch, "delete"))
        assert ["content-md5" in asked.headers for asked in server.asked] == [False, True] * 2


def test_objects_that_could_not_be_deleted_are_counted_and_the_first_is_named():
    errors = "".join(
        f"<Error><Key>prefix/job_1/{name}</Key><Code>{code}</Code><Message>m</Message></Error>"
        for name, code in (("z", "NoSuchKey"), ("a", "AccessDenied"), ("b", "InternalError"))
    )
    with odd_s3(bulk(errors=errors)) as server:
        scratch = open_scratch(server.settings())
        with pytest.raises(PartError) as caught:
            scratch.delete([f"job_1/{number}" for number in range(1500)])
        assert len(server.asked) == 2
    assert str(caught.value) == "4 scratch objects could not be deleted, the first is job_1/a (AccessDenied)"


def test_an_object_that_was_gone_already_is_no_error():
    with odd_s3(bulk(errors="<Error><Key>prefix/job_1/a</Key><Code>NoSuchKey</Code></Error>")) as server:
        open_scratch(server.settings()).delete(["job_1/a"])


# --- how it fails


@pytest.mark.parametrize("action", ACTIONS)
def test_a_missing_bucket_is_told_with_its_name_and_the_endpoint(s3, action):
    scratch = open_scratch(s3.settings(SCRATCH_URL="s3://not-made-yet/p"))
    text = str(failure_of(scratch, action))
    assert text == f"There is no bucket not-made-yet at {s3.endpoint}. Make it, or look at SCRATCH_URL and S3_ENDPOINT_URL."


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("setting", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_told_by_the_setting_that_holds_it_and_never_shown(s3, prefix, setting, action):
    wrong = random_id("wrong", 20)
    error = failure_of(open_scratch(s3.settings(prefix, **{setting: wrong})), action)
    assert isinstance(error, Transient)
    assert error.notice == NOT_ALLOWED
    assert f"look at {setting}" in str(error)
    shown = "".join(traceback.format_exception(error))
    for secret in (wrong, s3.key_id, s3.secret, "X-Amz-", "Signature="):
        assert secret not in shown


def test_a_server_that_echoes_keys_is_not_repeated():
    with odd_s3(lambda asked: fault(403, "AccessDenied", asked.headers["authorization"])) as server:
        error = failure_of(open_scratch(server.settings()), "open")
    assert str(error) == (
        f"http://127.0.0.1:{server.port} refused to open in the bucket bucket: 403 AccessDenied; "
        "the key of AWS_ACCESS_KEY_ID may not do that"
    )
    assert "key-of-a-test" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
        (403, "SomethingNew", "AWS_SECRET_ACCESS_KEY"),
        (405, "MethodNotAllowed", "S3_ENDPOINT_URL"),
    ],
)
def test_a_refusal_says_which_setting_to_look_at(status, code, word):
    with odd_s3(lambda _: fault(status, code)) as server:
        text = str(failure_of(open_scratch(server.settings()), "put"))
    assert code in text
    assert word in text


def test_a_server_that_is_away_is_a_connection_error_that_names_the_endpoint():
    with odd_s3(lambda _: Answer()) as server:
        gone = server.settings()
    error = failure_of(open_scratch(gone), "put")
    assert isinstance(error, Transient)
    assert f"http://127.0.0.1:{server.port}" in str(error)
    assert "S3_ENDPOINT_URL" in str(error)


def test_an_answer_that_breaks_off_is_a_connection_error_and_no_shorter_object():
    with odd_s3(lambda _: Answer(body=bytes(1000), cut=300)) as server:
        assert isinstance(failure_of(open_scratch(server.settings()), "open"), Transient)


def test_a_request_that_failed_once_is_sent_again():
    answers = iter([fault(503, "SlowDown"), Answer()])
    with odd_s3(lambda _: next(answers)) as server:
        ACTIONS["put"](open_scratch(server.settings()))
        assert [asked.body for asked in server.asked] == [b"x", b"x"]


class Elsewhen:
    """An S3 whose clock differs by `ahead`. As Amazon's, it refuses what was signed over 15 minutes away from its own time."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def __call__(self, asked: Asked) -> Answer:
        now = datetime.now(UTC) + self.ahead
        signed = datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert f"/{signed:%Y%m%d}/" in asked.headers["authorization"]
        date = {"Date": format_datetime(now, usegmt=True)}
        if abs(now - signed) > timedelta(minutes=15):
            return replace(fault(403, "RequestTimeTooSkewed"), headers=date)
        return Answer(headers=date)


@pytest.mark.parametrize("hours", [-30, -1, -1 / 3, 1 / 3, 1, 30])
def test_a_machine_whose_clock_is_wrong_signs_by_the_clock_of_s3(hours):
    with odd_s3(Elsewhen(timedelta(hours=hours))) as server, capture_logs() as logs:
        scratch = open_scratch(server.settings())
        asked = [len(server.asked) for _ in range(3) if scratch.put("job_1/a", io.BytesIO(b"x")) is None]
    # libcurl's request is refused, and boto3's, which learns the time from it and repeats it. The later ones are right at once.
    assert asked == [3, 4, 5]
    assert [log["seconds"] for log in logs if log["event"] == "clock_differs"] == [pytest.approx(hours * 3600, abs=5)]


@pytest.mark.parametrize("headers", [{}, {"date": "soon"}])
def test_a_server_that_refuses_the_time_and_does_not_tell_its_own_is_warned_about(headers):
    response = SimpleNamespace(headers=headers), {"Error": {"Code": SKEWED}}
    with capture_logs() as logs:
        assert _Clock().learn_and_repeat(response=response, attempts=1) is None
    assert [log["event"] for log in logs] == ["clock_unknown"]


def test_a_server_that_refuses_every_time_is_told_by_the_clock():
    with odd_s3(lambda _: fault(403, "RequestTimeTooSkewed")) as server:
        error = failure_of(open_scratch(server.settings()), "put")
    assert "clock" in str(error)
    assert len(server.asked) <= 4


def test_a_server_that_goes_on_failing_is_an_error_with_its_code():
    with odd_s3(lambda _: fault(503, "SlowDown")) as server:
        error = failure_of(open_scratch(server.settings()), "put")
    assert str(error) == f"http://127.0.0.1:{server.port} refused to put in the bucket bucket: 503 SlowDown"


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("action", ["delete", "list"])
def test_a_web_server_that_is_no_s3_is_an_error_and_no_empty_store(status, action):
    with odd_s3(lambda _: Answer(status=status, body=b"<html><body>Welcome<br></body></html>", kind="text/html")) as server:
        text = str(failure_of(open_scratch(server.settings()), action))
    assert f"http://127.0.0.1:{server.port}" in text


def test_a_proxy_s_page_in_place_of_the_server_is_no_missing_object():
    with odd_s3(lambda _: Answer(status=404, body=b"<html><body>not here</body></html>", kind="text/html")) as server:
        failure_of(open_scratch(server.settings()), "open")


# --- settings


def test_the_secret_key_may_come_from_a_file(s3, prefix, tmp_path):
    (tmp_path / "secret").write_text(f"{s3.secret}\n")
    environ = {**s3.environment(prefix), "AWS_SECRET_ACCESS_KEY": "", "AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret")}
    ACTIONS["put"](open_scratch(load_settings(environ)))
    assert names(s3, prefix) == [f"{prefix}/job_1/a"]


def test_settings_show_neither_key(s3):
    shown = repr(s3.settings(AWS_SESSION_TOKEN="token-of-a-test"))
    for secret in (s3.key_id, s3.secret, "token-of-a-test"):
        assert secret not in shown
