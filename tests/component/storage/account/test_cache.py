"""Records that were answered before."""

from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy import func, select, update

from storage import schema
from storage.account import answers
from storage.database import now_ms
from tests.fakes.engine import FakeEngine
from tests.harness import Harness
from tests.rows import new_account

SAW = {"type": "object", "required": ["saw"]}


@pytest.fixture
def house(make_harness) -> Harness:
    return make_harness(CACHE_TTL="3600")


def ask(house: Harness, count: int = 3, *, key: str | None = None, **fields):
    body = {"inputMethod": "url", "images": house.urls(count), "prompt": "p", "granularity": "perImage", "cache": True, **fields}
    job = house.post(body, headers={"Prefer": "respond-async"}, key=key).json
    ended = house.get(f"{job['links']['self']}?wait=20", key=key).json
    answer = house.get(job["links"]["results"], key=key).json
    return ended, {record["index"]: record["result"] for record in json.loads(answer["results"])}


def test_an_image_that_was_answered_before_is_answered_without_a_call(house):
    first, said = ask(house)
    assert (first["usage"]["modelCalls"], first["usage"]["cacheHits"]) == (1, 0)
    second, again = ask(house)
    assert again == said == {index: f"img{index}" for index in range(3)}
    assert (second["usage"]["modelCalls"], second["usage"]["cacheHits"]) == (0, 3)
    assert second["usage"]["credits"] == 13
    assert len(house.engine.calls) == 1


def test_only_what_is_not_known_is_asked_for(house):
    ask(house, 2)
    ended, said = ask(house, 4)
    assert said == {index: f"img{index}" for index in range(4)}
    assert (ended["usage"]["modelCalls"], ended["usage"]["cacheHits"]) == (1, 2)
    assert [picture.data for picture in house.engine.calls[-1].pictures] == [b"img2", b"img3"]


@pytest.mark.parametrize(
    "other", [{"prompt": "q"}, {"jsonMode": True}, {"schema": SAW}, {"detail": "low"}, {"cache": False}], ids=str
)
def test_another_question_is_asked_anew(house, other):
    ask(house)
    ended, _ = ask(house, **other)
    assert ended["usage"]["cacheHits"] == 0
    assert len(house.engine.calls) == 2


def test_how_the_images_are_shared_out_makes_no_other_question(house):
    ask(house)
    ended, _ = ask(house, imagesPerCall=1)
    assert ended["usage"]["cacheHits"] == 3


def test_an_account_never_sees_another_s_answers(house):
    ask(house)
    _, key = house.new_key()
    ended, _ = ask(house, key=key)
    assert ended["usage"]["cacheHits"] == 0


def test_an_answer_is_forgotten_when_its_time_is_over(house):
    ask(house)
    with house.database.write() as connection:
        connection.execute(update(schema.answers_table).values(expires_at=now_ms() - 1))
    ended, _ = ask(house)
    assert ended["usage"]["cacheHits"] == 0
    assert house.count_rows("answers") == 3
    with house.database.write() as connection:
        connection.execute(update(schema.answers_table).values(expires_at=now_ms() - 1))
    house.supervisor.purge()
    assert house.count_rows("answers") == 0


def test_merged_answers_are_not_kept(house):
    body = {"inputMethod": "url", "images": house.urls(2), "prompt": "p", "cache": True}
    house.post(body)
    house.post(body)
    assert len(house.engine.calls) == 2
    assert house.count_rows("answers") == 0


def test_without_a_time_to_keep_them_no_answers_are_kept_and_the_job_says_so(make_harness):
    house = make_harness(engine=FakeEngine())
    ended, _ = ask(house)
    assert "CACHE_TTL" in ended["warnings"][0]
    assert ask(house)[0]["usage"]["cacheHits"] == 0
    assert house.count_rows("answers") == 0


def test_cache_must_be_a_boolean(house):
    answer = house.post({"inputMethod": "url", "images": ["https://a.example/"], "prompt": "p", "cache": 1})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "invalid_cache")


def keep(database, account, records, ttl_ms=60_000):
    with database.write() as connection:
        answers.keep_answers(connection, account, records, ttl_ms=ttl_ms)


def known(database, account, *keys):
    with database.read() as connection:
        return answers.known_answers(connection, account, keys)


def test_what_is_kept_again_is_replaced(database):
    account = new_account(database)
    keep(database, account, {"a": 1, "b": None})
    keep(database, account, {"a": {"x": ["\u00e4"]}})
    assert known(database, account, "a", "b", "c") == {"a": {"x": ["\u00e4"]}, "b": None}


def test_who_keeps_the_same_at_once_does_not_stand_in_each_other_s_way(database):
    account = new_account(database)
    keys = [f"k{index}" for index in range(50)]
    failures = []

    def write(order):
        try:
            for _ in range(10):
                keep(database, account, dict.fromkeys(order, 1))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(order,)) for order in (keys, keys[::-1], keys, keys[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(known(database, account, *keys)) == 50


def test_expired_answers_are_deleted_some_at_a_time(database):
    account = new_account(database)
    keep(database, account, {f"k{index}": index for index in range(5)}, ttl_ms=-1)
    keep(database, account, {"alive": 1})
    with database.write() as connection:
        assert answers.forget_expired(connection, limit=3) == 3
        assert answers.forget_expired(connection, limit=3) == 2
        assert connection.scalar(select(func.count()).select_from(schema.answers_table)) == 1
