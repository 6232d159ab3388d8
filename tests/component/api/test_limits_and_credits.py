"""Each limit at the limit and one over it; what is reserved and charged; what is refused for want of credits or room."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from api.app import create_app
from pipeline.types import MAX_IMAGE_BYTES, MB, Answer, Finish, ItemCode
from storage.account import ledger
from tests.fakes.engine import FakeEngine
from tests.harness import URL, Harness, b64

ASYNC = {"Prefer": "respond-async"}
LARGEST = b64(b"img" + bytes(MAX_IMAGE_BYTES - 3))  #: 20 MB exactly


def brief_engine() -> FakeEngine:
    """Says little, however large the pictures are."""
    return FakeEngine(script=lambda _call, _number: Answer(finish=Finish.COMPLETE, text="seen"))


def base64_request(*images: str) -> dict[str, Any]:
    return {"inputMethod": "base64", "images": list(images), "prompt": "p"}


def url_request(harness: Harness, count: int) -> dict[str, Any]:
    return {"inputMethod": "url", "images": harness.urls(count), "prompt": "p"}


def refused(harness: Harness, body: Any, status: int, code: str, **options: Any) -> dict[str, str]:
    """The headers of a refusal that has left no row, no credit held and nothing in scratch."""
    rows = [harness.count_rows(table) for table in ("jobs", "images", "chunks", "steps", "ledger")]
    answer = harness.post(body, **options)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, code), answer.json
    assert list(answer.json) == ["error"]
    assert rows == [harness.count_rows(table) for table in ("jobs", "images", "chunks", "steps", "ledger")]
    return {**answer.headers, "error": answer.json["error"]}


@pytest.mark.parametrize("count", [1, 3000])
def test_one_to_three_thousand_images_are_processed_each_once_and_charged_once(harness, count):
    answer = harness.post(base64_request(*(b64(b"img%d" % index) for index in range(count))))
    assert answer.status_code == 200
    assert (answer.json["imageCount"], answer.json["creditUsage"]) == (count, 10 + count)
    seen = [picture.data for call in harness.engine.calls for picture in call.pictures]
    assert sorted(seen) == sorted(b"img%d" % index for index in range(count))
    assert harness.balance() == (100_000 - 10 - count, 0, 10 + count)


def test_credits_that_are_granted_while_the_body_comes_count(harness):
    account, key = harness.new_key(credits=10)

    class Granting:
        """Counts the request as the front door does between the key and the body, and grants what is missing."""

        def hit(self, *given: Any) -> bool:
            with harness.database.write() as connection:
                ledger.grant(connection, account, 1)
            return bool(limiter.hit(*given))

        def get_window_stats(self, *given: Any) -> Any:
            return limiter.get_window_stats(*given)

    limiter, granting = harness.web.limiter, Granting()
    web: Any = replace(harness.web, limiter=granting)
    harness.app = create_app(web)
    assert harness.post(base64_request(b64(b"img0")), key=key, headers=ASYNC).status_code == 202


@pytest.mark.parametrize("method", ["base64", "url"])
def test_three_thousand_and_one_images_are_a_400(harness, method):
    body = {"inputMethod": method, "images": ["aW1n"] * 3001, "prompt": "p"}
    headers = refused(harness, body, 400, "invalid_image_count")
    assert headers["error"] == "images must hold 1 to 3000 strings, this request has 3001."


def test_twenty_megabytes_an_image_and_a_hundred_in_total_are_taken_and_one_byte_more_is_a_400(make_harness):
    harness = make_harness(engine=brief_engine(), workers_count=0)
    taken = harness.post(base64_request(*[LARGEST] * 5), headers=ASYNC)
    assert taken.status_code == 202
    harness.drain()
    job = harness.get(taken.headers["Location"]).json
    assert (job["status"], job["counts"]["succeeded"]) == ("succeeded", 5)
    over = refused(harness, base64_request(*[LARGEST] * 5, b64(b"i")), 400, "total_too_large")
    assert "over 100 MB in total, reached at images[5]" in over["error"]


def test_an_image_one_byte_over_twenty_megabytes_is_a_400_that_names_it(harness):
    too_large = b64(b"img" + bytes(MAX_IMAGE_BYTES - 2))
    headers = refused(harness, base64_request(b64(b"img"), too_large), 400, "image_too_large")
    assert headers["error"] == "images[1] is 20.0 MB (20971521 bytes); an image may have 20 MB."
    assert harness.scratch.objects == {}


def test_downloads_of_a_hundred_megabytes_pass(make_harness):
    harness = make_harness(engine=brief_engine(), MERGED_PER_CALL="3", workers_count=0)
    picture = b"img" + bytes(MAX_IMAGE_BYTES - 3)
    images = [harness.page(f"https://pictures.example/{index}", picture) for index in range(5)]
    accepted = harness.post({"inputMethod": "url", "images": images, "prompt": "p"}, headers=ASYNC)
    harness.drain()
    assert harness.get(accepted.headers["Location"]).json["status"] == "succeeded"


def test_a_body_may_have_max_body_bytes_and_not_one_more(make_harness):
    body = json.dumps(base64_request(b64(b"img"))).encode()
    harness = make_harness(MAX_BODY=str(len(body)))
    assert harness.post(body).status_code == 200
    headers = refused(harness, body + b" ", 400, "body_too_large")
    assert headers["error"] == f"The body has {len(body) + 1} bytes; the most this service takes is {len(body)}."


@pytest.mark.parametrize("padding", [0, MB - 200, MB + 200, 3 * MB])
def test_a_body_of_any_size_is_read_whether_it_fits_in_memory_or_not(harness, padding):
    body = json.dumps({**base64_request(b64(b"img")), "other": "x" * padding}).encode()
    assert harness.post(body).json["results"] == "1=img"


def raw_post(harness: Harness, body: Any, **environ: str) -> tuple[int, dict[str, str], Any]:
    """A POST whose length is whatever `environ` says of it."""
    sent = EnvironBuilder(path=URL, method="POST").get_environ()
    sent.pop("CONTENT_LENGTH", None)
    sent |= {"wsgi.input": body, "HTTP_AUTHORIZATION": f"Bearer {harness.key}", **environ}
    parts, status, headers = run_wsgi_app(harness.app, sent, buffered=True)
    return int(status.split()[0]), dict(headers), json.loads(b"".join(parts))


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": "1"},
        {"HTTP_TRANSFER_ENCODING": "gzip, Chunked", "CONTENT_LENGTH": "7"},
    ],
)
def test_a_body_without_its_length_is_a_411(harness, environ):
    status, headers, body = raw_post(harness, io.BytesIO(b'{"a":1}'), **environ)
    assert (status, headers["X-Error-Code"]) == (411, "length_required")
    assert body == {"error": "Send the body with a Content-Length header, not chunked."}


@pytest.mark.parametrize(("received", "length"), [(7, 100), (0, 1), (7, 2 * MB), (MB + 7, 2 * MB)])
def test_a_body_that_ends_too_early_is_a_400_that_says_where(harness, received, length):
    valid = json.dumps(base64_request(b64(b"img"))).encode().ljust(MB + 7)
    body = valid[:received] if received < 10 else valid
    status, headers, answer = raw_post(harness, io.BytesIO(body), CONTENT_LENGTH=str(length))
    assert (status, headers["X-Error-Code"]) == (400, "body_cut_short")
    assert answer == {"error": f"The body ended after {received} of {length} bytes."}
    assert harness.count_rows("jobs") == 0


class Gone:
    """A client that was there for a moment."""

    def __init__(self) -> None:
        self._left = [b'{"inputMethod"']

    def read(self, _size: int = -1) -> bytes:
        if not self._left:
            raise ConnectionResetError("gone")
        return self._left.pop()


@pytest.mark.parametrize("length", ["1000", str(2 * MB)])
def test_a_client_that_is_gone_in_the_middle_of_its_body_leaves_nothing(harness, length):
    status, headers, _ = raw_post(harness, Gone(), CONTENT_LENGTH=length)
    assert (status, headers["X-Error-Code"]) == (400, "body_cut_short")
    assert harness.count_rows("jobs") == 0


@pytest.mark.parametrize("authorization", ["", "Bearer x", "Basic eDp5"])
@pytest.mark.parametrize("environ", [{"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "1000"}, {"CONTENT_LENGTH": "9"}])
def test_the_key_is_judged_before_the_body_and_its_length(make_harness, authorization, environ):
    harness = make_harness(MAX_BODY="10")
    status, headers, body = raw_post(harness, Gone(), HTTP_AUTHORIZATION=authorization, **environ)
    assert (status, body) == (401, {"error": "Invalid or missing Authorization header"})
    assert headers["X-Error-Code"] == "unauthorized"


# Credits.


def test_an_account_needs_ten_credits_and_one_for_each_image(harness):
    account, key = harness.new_key(credits=12)
    headers = refused(harness, url_request(harness, 3), 402, "insufficient_credits", key=key)
    assert headers["error"] == "This request may cost 13 credits, the account has 12. Grant more, or send fewer images."
    assert harness.balance(account) == (12, 0, 0)
    assert harness.post(url_request(harness, 2), key=key).status_code == 200
    assert harness.balance(account) == (0, 0, 12)


def test_an_account_without_credits_is_refused_before_anything_is_stored(harness):
    account, key = harness.new_key(credits=0)
    refused(harness, base64_request(b64(b"img")), 402, "insufficient_credits", key=key)
    assert harness.scratch.objects == {}
    assert harness.balance(account) == (0, 0, 0)


def test_credits_that_are_held_by_one_job_are_not_there_for_another(make_harness):
    harness = make_harness(workers_count=0)
    account, key = harness.new_key(credits=21)
    first = harness.post(url_request(harness, 1), key=key, headers=ASYNC)
    assert harness.balance(account) == (10, 11, 0)
    refused(harness, url_request(harness, 1), 402, "insufficient_credits", key=key)
    harness.drain()
    assert harness.ledger(first.json["id"]) == [("reserve", 11), ("charge", 11), ("release", 0)]
    assert harness.balance(account) == (10, 0, 11)


def test_only_the_images_that_were_processed_are_charged(harness):
    answer = harness.post(base64_request(b64(b"img"), b64(b"no picture"), b64(b"none either")))
    assert (answer.json["imageCount"], answer.json["creditUsage"]) == (1, 11)
    assert harness.ledger()[1:] == [("reserve", 13), ("charge", 11), ("release", 2)]


@pytest.mark.parametrize(
    ("code", "status"),
    [(ItemCode.SAFETY_BLOCKED, 500), (ItemCode.RECITATION, 500), (ItemCode.IMAGE_CORRUPT, 400)],
)
def test_a_job_without_a_processed_image_costs_nothing(make_harness, code, status):
    def script(_call, _number):
        return Answer(finish=Finish.BLOCKED, code=code, detail="no")

    harness = make_harness(engine=FakeEngine(script=script))
    answer = harness.post(url_request(harness, 2))
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, code.value)
    assert list(answer.json) == ["error"]
    assert answer.json["error"].startswith("Failed to extract image data: ") is (status == 500)
    assert harness.ledger()[1:] == [("reserve", 12), ("charge", 0), ("release", 12)]


# Rate and room.


def test_every_answer_to_a_valid_key_says_what_is_left_of_its_rate(make_harness):
    harness = make_harness(RATE_LIMIT="20/hour")
    sent = {"Authorization": f"Bearer {harness.key}"}
    answers = [
        harness.post(base64_request(b64(b"img"))),
        harness.post(base64_request(b64(b"img")), headers=ASYNC),
        harness.post(b"{"),
        harness.post(base64_request(b64(b"no picture"))),
        harness.client.get(URL, headers=sent),
        harness.get("/api/v1/jobs/job_none"),
        harness.get("/api/v1/nothing"),
        harness.client.put(URL, headers=sent),
    ]
    assert [answer.status_code for answer in answers] == [200, 202, 400, 400, 200, 404, 404, 405]
    assert [answer.headers["X-RateLimit-Limit"] for answer in answers] == ["20"] * 8
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == [str(left) for left in range(19, 11, -1)]


def test_a_request_over_the_rate_is_a_429_that_says_when_to_come_back(make_harness):
    harness = make_harness(RATE_LIMIT="2/hour")
    for _ in range(2):
        assert harness.post(base64_request(b64(b"img"))).status_code == 200
    headers = refused(harness, base64_request(b64(b"img")), 429, "rate_limited")
    # The fake counts in hours of the clock. Behind the end of this hour, a half of it passes until one of two requests is forgotten.
    assert 1800 < int(headers["Retry-After"]) <= 5400
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("2", "0")


def test_the_rate_is_each_key_s_own(make_harness):
    harness = make_harness(RATE_LIMIT="1/hour")
    _, other = harness.new_key()
    assert harness.post(base64_request(b64(b"img"))).status_code == 200
    assert harness.post(base64_request(b64(b"img")), key=other).status_code == 200
    assert harness.get("/api/v1/jobs/job_none").status_code == 429


def test_an_account_may_have_so_many_open_jobs_and_one_more_is_a_429(make_harness):
    harness = make_harness(workers_count=0, MAX_OPEN_JOBS="2")
    for _ in range(2):
        assert harness.post(base64_request(b64(b"img")), headers=ASYNC).status_code == 202
    stored = dict(harness.scratch.objects)
    headers = refused(harness, base64_request(b64(b"img")), 429, "too_many_open_jobs", headers=ASYNC)
    assert int(headers["Retry-After"]) >= 1
    assert headers["X-RateLimit-Remaining"]
    assert harness.scratch.objects == stored
    assert harness.balance() == (100_000 - 22, 22, 0)
    _, other = harness.new_key()
    assert harness.post(base64_request(b64(b"img")), key=other, headers=ASYNC).status_code == 202
    harness.drain()
    assert harness.post(base64_request(b64(b"img")), headers=ASYNC).status_code == 202


def test_when_no_waiting_place_is_free_nothing_is_accepted_and_nothing_charged(make_harness):
    harness = make_harness(MAX_WAITERS="1")
    with harness.web.waiting_places.held("acc_other"):
        headers = refused(harness, base64_request(b64(b"img")), 429, "no_waiting_place")
        assert int(headers["Retry-After"]) >= 1
        assert headers["X-RateLimit-Remaining"]
        assert harness.balance() == (100_000, 0, 0)
        assert harness.scratch.objects == {}
        assert harness.post(base64_request(b64(b"img")), headers=ASYNC).status_code == 202
    assert harness.post(base64_request(b64(b"img"))).status_code == 200


def test_a_refused_request_gives_its_waiting_place_back(make_harness):
    harness = make_harness(MAX_WAITERS="1")
    for _ in range(3):
        assert harness.post(b"{").status_code == 400
    assert harness.post(base64_request(b64(b"img"))).status_code == 200


def test_one_account_can_not_take_all_waiting_places(make_harness):
    harness = make_harness(MAX_WAITERS="4")
    account, key = harness.new_key()
    with ExitStack() as waiting:
        for _ in range(3):
            waiting.enter_context(harness.web.waiting_places.held(account))
        headers = refused(harness, base64_request(b64(b"img")), 429, "no_waiting_place", key=key)
        assert int(headers["Retry-After"]) >= 1
        assert harness.post(base64_request(b64(b"img"))).status_code == 200


def test_one_account_can_not_take_all_places_for_large_bodies(make_harness):
    harness = make_harness(MAX_LARGE_BODIES="4")
    with ExitStack() as parsing:
        for _ in range(3):
            parsing.enter_context(harness.web.large_bodies.held("acc_other"))
        large = {**base64_request(b64(b"img")), "other": "x" * 2 * MB}
        assert harness.post(large).status_code == 200


def test_a_large_body_that_arrives_slowly_takes_no_place_of_those_that_are_parsed(make_harness):
    harness = make_harness(MAX_LARGE_BODIES="1")
    body = json.dumps({**base64_request(b64(b"img")), "other": "x" * 2 * MB}).encode()
    free: list[int] = []

    class Slow(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            free.append(harness.web.large_bodies.free)
            return super().readinto(buffer)

        def read(self, size: int | None = -1) -> bytes:
            free.append(harness.web.large_bodies.free)
            return super().read(size)

    status, _, _ = raw_post(harness, Slow(body), CONTENT_LENGTH=str(len(body)))
    assert status == 200
    assert set(free) == {1}


def test_bodies_of_one_account_that_arrive_slowly_are_refused_beyond_its_share(make_harness):
    harness = make_harness()
    account = harness.account
    large = {**base64_request(b64(b"img")), "other": "x" * 2 * MB}
    with harness.web.arriving.held(account, 96):
        refused(harness, large, 429, "too_many_bodies")
        _, other = harness.new_key()
        assert harness.post(large, key=other).status_code == 200
    assert harness.post(large).status_code == 200
