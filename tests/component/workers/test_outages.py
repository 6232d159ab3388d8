"""What callers see while a part of the service is away, and where its room is used up."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager

from sqlalchemy import text

from pipeline.errors import Transient
from storage.redis.watching import Watch
from tests.harness import b64
from tests.rows import disk_fails

BODY = {"inputMethod": "base64", "images": [b64(b"img a")], "prompt": "p"}


def test_while_scratch_is_away_a_request_is_a_503_and_nothing_is_held(harness):
    harness.scratch.put = away  # type: ignore[method-assign]
    answer = harness.post(BODY)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"]
    assert harness.count_rows("jobs") == 0
    assert harness.balance() == (100_000, 0, 0)


def test_while_sql_is_away_a_request_is_a_503(harness):
    with disk_fails(harness.database):
        answer = harness.post(BODY)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "unavailable")


def test_a_schema_that_is_not_this_version_s_is_a_500_since_no_second_try_helps(harness):
    with harness.database.write() as connection:
        connection.execute(text("ALTER TABLE api_keys RENAME TO away"))
    answer = harness.post(BODY)
    with harness.database.write() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO api_keys"))
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (500, "internal_error")
    assert "Retry-After" not in answer.headers


def test_a_job_that_was_accepted_before_sql_went_away_is_answered_with_where_to_follow_it(make_harness):
    harness = make_harness(workers_count=0)
    watch = harness.signals.watch

    def watch_and_break(job: str, **options: bool) -> AbstractContextManager[Watch]:
        with harness.database.write() as connection:
            connection.execute(text("ALTER TABLE jobs RENAME TO away"))
        return watch(job, **options)

    harness.signals.watch = watch_and_break  # type: ignore[method-assign]
    answer = harness.post(BODY)
    with harness.database.write() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO jobs"))
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["links"]["self"]
    harness.drain()
    assert harness.get(answer.headers["Location"]).json["status"] == "succeeded"


def test_when_scratch_is_full_a_request_is_a_429_until_a_job_ends(make_harness):
    harness = make_harness(workers_count=0, MAX_SCRATCH_BYTES="10")
    assert harness.post(BODY, headers={"Prefer": "respond-async"}).status_code == 202
    refused = harness.post(BODY, headers={"Prefer": "respond-async"})
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (429, "scratch_full")
    assert refused.headers["Retry-After"]
    harness.drain()
    assert harness.post(BODY, headers={"Prefer": "respond-async"}).status_code == 202


def test_a_large_body_waits_for_its_turn(make_harness):
    harness = make_harness(MAX_LARGE_BODIES="1")
    place = harness.web.large_bodies
    assert place.take("acc_other")
    answers: list[int] = []
    large = {**BODY, "images": [b64(b"img" + bytes(2_000_000))]}
    thread = threading.Thread(target=lambda: answers.append(harness.post(large).status_code))
    thread.start()
    assert harness.post(BODY).status_code == 200  # a small one passes
    assert answers == []
    place.give_back("acc_other")
    thread.join()
    assert answers == [200]


def away(*_: object) -> None:
    raise Transient("the bucket is away")
