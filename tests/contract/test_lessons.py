"""What servers have taught the engines: in one process, and shared through Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import fakeredis
import pytest

from pipeline.engines.lessons import KEPT_SECONDS, LocalLessons
from pipeline.ports import Lessons
from storage.redis.lessons import AWAY_SECONDS, FRESH_SECONDS, RedisLessons
from storage.redis.signals import connect


@pytest.fixture(params=["local", "fakeredis", "valkey"])
def lessons(request: pytest.FixtureRequest) -> Iterator[Lessons]:
    if request.param == "local":
        yield LocalLessons()
        return
    client = fakeredis.FakeRedis() if request.param == "fakeredis" else connect(request.getfixturevalue("redis_url"))
    client.flushall()
    yield RedisLessons(client)
    client.flushall()
    client.close()


def test_nothing_is_known_before_it_was_learnt(lessons):
    assert lessons.known("one", "other") == [{}, {}]


def test_the_last_lesson_of_a_topic_is_the_one_that_is_known(lessons):
    lessons.learn("one", {"pictures": 4, "without": ["json_schema"]})
    lessons.learn("other", {"system": False})
    lessons.learn("one", {"pictures": 1})
    assert lessons.known("other", "one", "third") == [{"system": False}, {"pictures": 1}, {}]


def test_a_lesson_is_forgotten_after_an_hour():
    now = [0.0]
    lessons = LocalLessons(clock=lambda: now[0])
    lessons.learn("one", {"pictures": 1})
    now[0] = KEPT_SECONDS - 1
    assert lessons.known("one") == [{"pictures": 1}]
    now[0] = KEPT_SECONDS
    assert lessons.known("one") == [{}]
    client = fakeredis.FakeRedis()
    RedisLessons(client).learn("one", {"pictures": 1})
    [key] = client.keys()
    assert 0 < client.ttl(key) <= KEPT_SECONDS


def test_what_one_process_learns_another_one_knows():
    server = fakeredis.FakeServer()
    first, second = (RedisLessons(fakeredis.FakeRedis(server=server)) for _ in range(2))
    first.learn("one", {"pictures": 1})
    assert second.known("one") == [{"pictures": 1}]


def test_what_another_process_learns_is_known_after_a_second_or_when_it_is_asked_for_anew():
    server, now = fakeredis.FakeServer(), [0.0]
    first = RedisLessons(fakeredis.FakeRedis(server=server))
    second = RedisLessons(fakeredis.FakeRedis(server=server), clock=lambda: now[0])
    first.learn("one", {"pictures": 4})
    assert second.known("one") == [{"pictures": 4}]
    first.learn("one", {"pictures": 1})
    now[0] = FRESH_SECONDS - 0.01
    assert second.known("one") == [{"pictures": 4}]
    now[0] = FRESH_SECONDS
    assert second.known("one") == [{"pictures": 1}]
    first.learn("one", {"pictures": 2})
    assert second.known("one", fresh=True) == [{"pictures": 2}]


def test_a_lesson_that_was_just_read_is_not_read_again_and_what_one_learns_oneself_is_known_at_once():
    server = fakeredis.FakeServer()
    lessons = RedisLessons(fakeredis.FakeRedis(server=server), clock=lambda: 0.0)
    assert lessons.known("one", "other") == [{}, {}]
    lessons.learn("one", {"pictures": 1})
    server.connected = False
    assert lessons.known("other") == [{}]
    assert lessons.known("one", "other") == [{"pictures": 1}, {}]


def test_what_is_learnt_while_redis_is_read_is_known_afterwards():
    now = [0.0]

    class Slow(fakeredis.FakeRedis):
        def mget(self, *keys):
            found = super().mget(*keys)
            now[0] += 0.1
            lessons.learn("one", {"pictures": 1})
            return found

    lessons = RedisLessons(Slow(), clock=lambda: now[0])
    assert lessons.known("one") == [{}]
    assert lessons.known("one") == [{"pictures": 1}]


def test_while_redis_is_away_a_process_remembers_by_itself_and_tries_redis_again_later():
    server, now = fakeredis.FakeServer(), [0.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    lessons = RedisLessons(fakeredis.FakeRedis(server=server), clock=clock)
    server.connected = False
    lessons.learn("one", {"pictures": 1})
    assert lessons.known("one") == [{"pictures": 1}]
    server.connected = True
    now[0] = AWAY_SECONDS
    lessons.learn("other", {"pictures": 2})
    assert RedisLessons(fakeredis.FakeRedis(server=server)).known("other") == [{"pictures": 2}]
