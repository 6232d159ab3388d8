"""A request that is sent again with its Idempotency-Key is the same job, paid for once."""

from __future__ import annotations

import threading

import pytest

from storage.job import accepting, closing
from storage.job.accepting import IdempotencyKey, SentBefore
from tests.harness import CREDITS, b64, running
from tests.rows import at_once, job_of, new_account

BODY = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}
KEY = {"Idempotency-Key": "0b9b7d1e-1c1d-4b1f-8f0e-1f2d3c4b5a69"}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path):
    with running(tmp_path) as made:
        yield made


def test_the_same_request_again_gets_the_same_answer_and_is_charged_once(house):
    first, again = house.post(BODY, headers=KEY), house.post(BODY, headers=KEY)
    assert first.status_code == again.status_code == 200
    assert first.data == again.data
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert house.balance() == (CREDITS - 11, 0, 11)
    assert len(house.engine.calls) == 1


def test_a_job_that_is_under_way_is_waited_for(tmp_path):
    with running(tmp_path, workers_count=0) as house:
        job = house.post(BODY, headers={**KEY, **ASYNC}).json["id"]
        assert house.post(BODY, headers={**KEY, **ASYNC}).json["id"] == job
        working = threading.Thread(target=house.drain)
        working.start()
        assert house.post(BODY, headers=KEY).status_code == 200
        working.join()
        assert house.count_rows("jobs") == 1


def test_another_body_with_the_same_key_is_refused(house):
    house.post(BODY, headers=KEY)
    refused = house.post({**BODY, "prompt": "q"}, headers=KEY)
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (409, "idempotency_key_reused")
    assert house.balance() == (CREDITS - 11, 0, 11)


def test_a_job_that_failed_fails_again_without_a_second_try(house):
    body = {**BODY, "images": [b64(b"none")]}
    first, again = house.post(body, headers=KEY), house.post(body, headers=KEY)
    assert first.status_code == again.status_code == 400
    assert first.data == again.data
    assert house.count_rows("jobs") == 1


def test_a_request_that_was_refused_leaves_its_key_free(house):
    assert house.post({**BODY, "images": []}, headers=KEY).status_code == 400
    assert house.post(BODY, headers=KEY).status_code == 200


def test_what_was_accepted_once_needs_no_credits_and_no_room_again(tmp_path):
    with running(tmp_path, workers_count=0, MAX_OPEN_JOBS="1") as house:
        _, poor = house.new_key(11)
        job = house.post(BODY, key=poor, headers={**KEY, **ASYNC}).json["id"]
        assert house.post(BODY, key=poor, headers={**KEY, **ASYNC}).json["id"] == job


def test_a_key_is_its_account_s_own(house):
    _, other = house.new_key()
    assert house.post(BODY, headers=KEY).status_code == house.post(BODY, key=other, headers=KEY).status_code == 200
    assert house.count_rows("jobs") == 2


def test_when_the_results_have_expired_so_has_the_answer(house):
    house.post(BODY, headers=KEY)
    house.make_expired()
    house.supervisor.purge()
    gone = house.post(BODY, headers=KEY)
    assert (gone.status_code, gone.headers["X-Error-Code"]) == (410, "results_expired")


@pytest.mark.parametrize("key", ["", "   ", "a" * 256, "a b", "schlüssel"])
def test_a_key_that_is_none_is_refused(house, key):
    refused = house.post(BODY, headers={"Idempotency-Key": key or " "})
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, "invalid_idempotency_key")
    assert house.count_rows("jobs") == 0


def test_fifty_at_once_are_one_job_and_fifty_equal_answers(house):
    answers = at_once(*[lambda: house.post(BODY, headers=KEY)] * 50)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.data for answer in answers}) == 1
    assert house.count_rows("jobs") == 1
    assert house.balance() == (CREDITS - 11, 0, 11)


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/extract-image"])
def test_fifty_connections_at_once_are_one_job_on_either_database(database_url, tmp_path, path):
    with running(tmp_path, DATABASE_URL=database_url, workers_count=0) as house:
        answers = at_once(*[lambda: house.ask("POST", path, json=BODY, headers={**KEY, **ASYNC})] * 50)
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.data for answer in answers}) == 1
        assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 49
        assert [house.count_rows(name) for name in ("jobs", "images", "idempotency_keys")] == [1, 1, 1]
        assert len(house.scratch.objects) == 1
        assert house.balance() == (CREDITS - 11, 11, 0)


def test_both_posts_know_each_other_s_keys(house):
    job = house.ask("POST", "/api/v1/jobs", json=BODY, headers=KEY)
    assert house.ask("POST", "/api/v1/jobs", json=BODY, headers=KEY).json["id"] == job.json["id"]
    again = house.ask("POST", "/api/v1/extract-image", json=BODY, headers=KEY)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert house.count_rows("jobs") == 1


def test_of_two_that_are_accepted_at_once_one_makes_the_job_and_the_other_learns_of_it(database):
    owner = new_account(database)
    key = IdempotencyKey(key="k", body_hash="h")

    def accept():
        new = job_of(owner, idempotency=key)
        try:
            with database.write() as connection:
                accepting.accept(connection, new, max_open=100, max_scratch=10**12)
        except SentBefore as before:
            return before.job if before.same_body else "another"
        return new.id

    assert len(set(at_once(*[accept] * 8))) == 1


def test_a_key_outlives_the_end_of_its_job(database):
    new = job_of(new_account(database), idempotency=IdempotencyKey(key="k", body_hash="h"))
    with database.write() as connection:
        accepting.accept(connection, new, max_open=100, max_scratch=10**12)
        closing.cancel(connection, new.id)
    with database.read() as connection, pytest.raises(SentBefore) as raised:
        accepting.check_not_sent_before(connection, new.account, IdempotencyKey(key="k", body_hash="other"))
    assert (raised.value.job, raised.value.same_body) == (new.id, False)
