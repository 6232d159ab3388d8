"""Keys at the front door: one refusal for every way of not having one, the same bytes each time."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import ConnectionError as RedisGone

from api.app import create_app
from api.wiring import limits_url
from storage.account.accounts import key_id, new_key, revoke_key
from tests.harness import URL, Harness, b64

BODY = {"inputMethod": "base64", "images": [b64(b"img")], "prompt": "p"}
REFUSAL = b'{"error":"Invalid or missing Authorization header"}'


def mistyped(key: str) -> str:
    return key[:-1] + ("a" if key[-1] != "a" else "b")


NO_KEYS = {
    "none": lambda _key: None,
    "empty": lambda _key: "",
    "blank": lambda _key: " ",
    "only the scheme": lambda _key: "Bearer",
    "the scheme and a space": lambda _key: "Bearer ",
    "what a script makes of an object": lambda _key: "Bearer [object Object]",
    "undefined": lambda _key: "Bearer undefined",
    "null": lambda _key: "Bearer null",
    "Basic": lambda _key: "Basic eDp5",
    "the key as Basic": lambda key: f"Basic {key}",
    "the key without a scheme": lambda key: key,
    "the key in quotes": lambda key: f'Bearer "{key}"',
    "the key twice": lambda key: f"Bearer {key}, Bearer {key}",
    "the key mistyped": lambda key: f"Bearer {mistyped(key)}",
    "the key cut short": lambda key: f"Bearer {key[:-1]}",
    "the key in lower case": lambda key: f"Bearer {key.lower()}",
    "a well-formed key that nobody has": lambda _key: f"Bearer {new_key()}",
    "characters that are no ASCII": lambda key: f"Bearer {key[:-1]}é",
    "a very long one": lambda _key: "Bearer " + "x" * 10_000,
    "SQL": lambda _key: "Bearer ' OR 1=1 --",
}


def send(harness: Harness, authorization: str | None, **options: object):
    sent = {} if authorization is None else {"Authorization": authorization}
    return harness.client.post(URL, json=BODY, headers={**sent, **options})


def told(answer):
    """All headers but the one that each answer has of its own."""
    return sorted(header for header in answer.headers if header[0] != "X-Request-Id")


@pytest.mark.parametrize("spoil", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_every_way_of_having_no_key_is_the_same_401_byte_for_byte(harness, spoil):
    refused = send(harness, spoil(harness.key))
    assert refused.status_code == 401
    assert refused.data == REFUSAL
    assert told(refused) == [
        ("Content-Length", str(len(REFUSAL))),
        ("Content-Type", "application/json"),
        ("WWW-Authenticate", "Bearer"),
        ("X-Error-Code", "unauthorized"),
    ]
    assert harness.count_rows("jobs") == 0


def test_a_revoked_key_is_refused_like_one_that_never_was(harness):
    assert send(harness, f"Bearer {harness.key}").status_code == 200
    with harness.database.write() as connection:
        assert revoke_key(connection, key_id(harness.key) or "") == 1
    refused, unknown = send(harness, f"Bearer {harness.key}"), send(harness, f"Bearer {new_key()}")
    assert (refused.status_code, refused.data) == (401, REFUSAL)
    assert told(refused) == told(unknown)


def test_a_key_with_another_s_id_is_refused(harness):
    """The secret decides, also where the checksum is right."""
    from storage.account.accounts import PREFIX, _checksum

    body = f"{key_id(harness.key)}_{'0' * 32}"
    forged = f"{PREFIX}_{body}{_checksum(body)}"
    assert key_id(forged) == key_id(harness.key)
    assert send(harness, f"Bearer {forged}").status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_known_in_any_case(harness, scheme):
    assert send(harness, f"{scheme} {harness.key} ").status_code == 200


def test_the_401_of_another_endpoint_has_its_code_too(harness):
    refused = harness.client.get("/api/v1/jobs/job_none")
    assert refused.json == {"error": "Invalid or missing Authorization header", "code": "unauthorized"}


def test_a_401_may_be_had_as_problem_details(harness):
    refused = send(harness, None, Accept="application/problem+json")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (refused.json["status"], refused.json["title"]) == (401, "Unauthorized")
    assert refused.json["error"] == "Invalid or missing Authorization header"


@pytest.mark.parametrize(
    ("sent", "query", "hint"),
    [
        ({}, "", ""),
        ({"Authorization": "Bearer nobody"}, "", ""),
        ({"Authorization": "xim_nobody"}, "", "Write Bearer and a space before the key: Authorization: Bearer <key>."),
        (
            {"Authorization": "Bearer Bearer nobody"},
            "",
            "Bearer stands there twice, so write it once: Authorization: Bearer <key>.",
        ),
        (
            {"Authorization": 'Bearer "nobody"'},
            "",
            "Write the key without quotes or brackets around it: Authorization: Bearer <key>.",
        ),
        (
            {"Authorization": "Bearer $KEY"},
            "",
            "A variable was sent by its name in place of the key, so set it and let the shell insert it: Authorization: Bearer <key>.",
        ),
        ({"X-API-Key": "xim_nobody"}, "", "The key came in the header X-API-Key; send it as Authorization: Bearer <key>."),
        (
            {},
            "?api_key=xim_nobody",
            "The key came in the query, as api_key; send it in the header Authorization: Bearer <key>, as URLs are logged.",
        ),
    ],
)
def test_the_form_of_a_request_without_a_key_is_explained_where_the_text_may_change(harness, sent, query, hint):
    text = "Invalid or missing Authorization header"
    hinted = f"{text}. {hint}" if hint else text
    compatible = harness.client.post(URL + query, json=BODY, headers=sent)
    assert compatible.data == REFUSAL
    problem = harness.client.post(URL + query, json=BODY, headers={**sent, "Accept": "application/problem+json"})
    assert (problem.json["error"], problem.json["detail"]) == (text, hinted)
    assert harness.client.get(f"/api/v1/jobs{query}", headers=sent).json["error"] == hinted


def test_a_bad_key_does_not_count_against_anyone_s_rate(make_harness):
    harness = make_harness(RATE_LIMIT="1/hour")
    for _ in range(3):
        assert send(harness, f"Bearer {mistyped(harness.key)}").status_code == 401
    assert send(harness, f"Bearer {harness.key}").status_code == 200


@pytest.mark.parametrize("key", [None, "wrong", "right"])
def test_an_address_that_is_none_says_so_to_everyone(harness, key):
    sent = {"Authorization": f"Bearer {harness.key if key == 'right' else key}"} if key else {}
    missing = harness.client.get("/api/v1/nothing", headers=sent)
    assert missing.status_code == 404
    assert ("X-RateLimit-Remaining" in missing.headers) is (key == "right")


class AwayStorage(MemoryStorage):
    """A Redis that is not there."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self._fault = fault

    def acquire_sliding_window_entry(self, *_: object, **__: object) -> bool:
        raise self._fault


@pytest.mark.parametrize("fault", [RedisGone("gone"), StorageError(RedisGone("gone")), OSError("gone")])
def test_without_redis_nothing_is_counted_and_everyone_is_served(make_harness, fault):
    harness = make_harness(RATE_LIMIT="1/hour")
    app = create_app(dataclasses.replace(harness.web, limiter=SlidingWindowCounterRateLimiter(AwayStorage(fault))))
    for _ in range(2):
        answer = app.test_client().post(URL, json=BODY, headers={"Authorization": f"Bearer {harness.key}"})
        assert answer.status_code == 200
        assert answer.headers["X-RateLimit-Limit"] == "1"
        assert answer.headers["RateLimit"] == '"key";r=1'


def test_every_answer_to_a_valid_key_says_what_is_left_of_its_rate_in_both_spellings(make_harness):
    harness = make_harness(RATE_LIMIT="2/hour")
    for path, left in (("/api/v1/jobs/none", 1), (URL, 0), ("/nothing", 0)):
        answer = harness.get(path)
        assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == ("2", str(left))
        assert answer.headers["RateLimit-Policy"] == '"key";q=2;w=3600'
        seconds = int(answer.headers["RateLimit"].removeprefix(f'"key";r={left};t='))
        assert 0 < seconds - (1800 if answer.status_code == 429 else 0) <= 3600
    assert (answer.status_code, answer.json["code"]) == (429, "rate_limited")
    assert answer.headers["RateLimit"].rpartition("=")[2] == answer.headers["Retry-After"]


def test_web_machines_whose_clocks_differ_agree_on_what_is_left(make_harness, redis_url, monkeypatch):
    harness = make_harness(RATE_LIMIT="2/hour")
    limiter = SlidingWindowCounterRateLimiter(storage_from_string(limits_url(redis_url)))
    app, true_time = create_app(dataclasses.replace(harness.web, limiter=limiter)), time.time
    for ahead, status in ((600, 404), (-7200, 404), (0, 429), (7200, 429)):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: true_time() + ahead)
        answer = app.test_client().get("/api/v1/jobs/none", headers={"Authorization": f"Bearer {harness.key}"})
        assert answer.status_code == status
    assert 5390 <= int(answer.headers["Retry-After"]) <= 5400


class UnreadableStorage(MemoryStorage):
    """A Redis that goes away after a request was counted."""

    def get_sliding_window(self, *_: object, **__: object) -> tuple[int, float, int, float]:
        raise RedisGone("gone")


def test_if_redis_goes_away_after_a_request_was_counted_it_is_served_and_a_refusal_stays_one(make_harness):
    harness = make_harness(RATE_LIMIT="1/hour")
    app = create_app(dataclasses.replace(harness.web, limiter=SlidingWindowCounterRateLimiter(UnreadableStorage())))
    served, refused = (
        app.test_client().post(URL, json=BODY, headers={"Authorization": f"Bearer {harness.key}"}) for _ in range(2)
    )
    assert (served.status_code, served.headers["X-RateLimit-Remaining"]) == (200, "1")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3600")
    assert refused.headers["X-RateLimit-Remaining"] == "0"


def test_a_request_that_waits_reads_its_rate_while_it_waits(make_harness):
    """The model's answer comes meanwhile, so this costs no time."""
    read = threading.Event()

    class Noting(SlidingWindowCounterRateLimiter):
        def get_window_stats(self, *given: Any) -> Any:
            read.set()
            return super().get_window_stats(*given)

    harness = make_harness(workers_count=0, RATE_LIMIT="5/hour")
    client = create_app(dataclasses.replace(harness.web, limiter=Noting(MemoryStorage()))).test_client()
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(client.post, URL, json=BODY, headers={"Authorization": f"Bearer {harness.key}"})
        assert read.wait(20)
        harness.drain()
        answer = asked.result(20)
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (200, "4")
