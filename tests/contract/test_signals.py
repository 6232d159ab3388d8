"""What the doorbell promises: the one in memory and the one in Redis."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.exceptions import RedisError

from storage.accounts import random_id
from storage.signals import COUNTS_TTL, PROCESSES, QUEUE, STREAM_LENGTH, STREAM_TTL, TASK, WAITED_QUEUE, Signals, celery_app
from storage.steps import Ring
from tests.fakes.signals import MemorySignals
from tests.rows import eventually

LONG = 20.0  # seconds: a wait that nothing wakes would show
SHORT = 0.05  # seconds: of a wait that is to end by itself


@dataclass
class Bell:
    """Signals, and how many threads block in `wait`."""

    signals: Any
    blocked: Callable[[], int]


@pytest.fixture(params=["memory", "redis"])
def bell(request: pytest.FixtureRequest) -> Iterator[Bell]:
    if request.param == "memory":
        memory = MemorySignals()
        yield Bell(memory, lambda: len(memory._changed._waiters))
        return
    signals = Signals(request.getfixturevalue("redis_url"))
    signals.redis.delete(QUEUE, WAITED_QUEUE)
    yield Bell(signals, lambda: signals.redis.info("clients")["blocked_clients"])
    signals.redis.delete(QUEUE, WAITED_QUEUE)
    signals.close()


@pytest.fixture
def signals(bell: Bell) -> Any:
    return bell.signals


def test_what_processes_put_up_stands_side_by_side_and_the_later_in_place_of_the_earlier(signals):
    before = signals.published()
    for process, text in (("worker@a:1", "1"), ("web@a:2", "1"), ("worker@a:1", '{"é": 2}')):
        signals.publish(process, text)
    assert signals.published() == {**before, "worker@a:1": '{"é": 2}', "web@a:2": "1"}


def test_what_an_ended_process_put_up_is_there_for_a_while_and_then_forgotten(redis_url):
    signals = Signals(redis_url)
    signals.publish("worker@a:3", "1")
    assert 0 < signals.redis.ttl(f"{PROCESSES}:worker@a:3") <= COUNTS_TTL
    signals.redis.delete(f"{PROCESSES}:worker@a:3")  # as if that time was over
    assert "worker@a:3" not in signals.published()
    assert not signals.redis.sismember(PROCESSES, "worker@a:3")
    signals.close()


@pytest.fixture
def job() -> str:
    return random_id("job_", 24)


def in_threads(count: int, action: Callable[[], str]) -> tuple[list[threading.Thread], list[str]]:
    given: list[str] = []
    threads = [threading.Thread(target=lambda: given.append(action())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, given


def test_an_event_told_before_the_wait_is_seen_at_once(signals, job):
    signals.tell(job)
    assert signals.wait(job, "0", LONG) != "0"


def test_a_wait_ends_when_its_time_is_over_and_gives_back_where_it_stood(signals, job):
    assert signals.wait(job, "0", SHORT) == "0"
    signals.tell(job)
    seen = signals.wait(job, "0", LONG)
    assert signals.wait(job, seen, SHORT) == seen


def test_one_event_wakes_all_who_wait(bell, job):
    threads, given = in_threads(6, lambda: bell.signals.wait(job, "0", LONG))
    eventually(lambda: bell.blocked() == 6)
    bell.signals.tell(job)
    for thread in threads:
        thread.join()
    assert len(set(given)) == 1
    assert "0" not in given


def test_a_wait_resumes_after_the_event_it_has_seen(signals, job):
    signals.tell(job)
    first = signals.wait(job, "0", LONG)
    signals.tell(job)
    second = signals.wait(job, first, LONG)
    assert second != first
    assert signals.wait(job, second, SHORT) == second


def test_what_was_told_between_two_waits_is_one_wake(signals, job):
    for _ in range(5):
        signals.tell(job)
    assert signals.wait(job, (seen := signals.wait(job, "0", LONG)), SHORT) == seen


def test_more_events_than_are_kept_lose_no_wake(signals, job):
    for _ in range(STREAM_LENGTH * 3):
        signals.tell(job)
    seen = signals.wait(job, "0", LONG)
    while (last := signals.wait(job, seen, SHORT)) != seen:
        seen = last
    signals.tell(job)
    assert signals.wait(job, seen, LONG) != seen


def test_an_event_of_another_job_wakes_nobody(signals, job):
    signals.tell(random_id("job_", 24))
    assert signals.wait(job, "0", SHORT) == "0"


def test_a_wait_of_no_time_still_sees_what_was_told(signals, job):
    assert signals.wait(job, "0", 0) == "0"
    signals.tell(job)
    assert signals.wait(job, "0", 0) != "0"


def test_the_queue_is_empty_until_something_is_rung(signals):
    assert signals.queue_is_empty()
    signals.ring([])
    assert signals.queue_is_empty()
    signals.ring(Ring(step, waited=False) for step in (7,))
    assert not signals.queue_is_empty()


def test_a_ring_for_a_waiting_caller_counts_as_a_message_too(signals):
    signals.ring([Ring(7, waited=True)])
    assert not signals.queue_is_empty()


@pytest.fixture
def redis_signals(redis_url: str) -> Iterator[Signals]:
    made = Signals(redis_url)
    made.redis.delete(QUEUE, WAITED_QUEUE)
    yield made
    made.redis.delete(QUEUE, WAITED_QUEUE)
    made.close()


@pytest.mark.parametrize(("waited", "queue"), [(False, QUEUE), (True, WAITED_QUEUE)])
def test_a_ring_reaches_the_celery_queue_as_a_task_with_the_step_and_nothing_else(redis_signals, redis_url, waited, queue):
    redis_signals.ring([Ring(41, waited=waited), Ring(42, waited=waited)])
    with celery_app(redis_url) as app, app.connection_for_read() as connection:
        simple = connection.SimpleQueue(queue)
        messages = [simple.get(timeout=10) for _ in range(2)]
        for message in messages:
            message.ack()
        simple.close()
    assert [message.headers["task"] for message in messages] == [TASK, TASK]
    assert [message.payload[:2] for message in messages] == [[[41], {}], [[42], {}]]
    assert {message.content_type for message in messages} == {"application/json"}
    assert redis_signals.queue_is_empty()


def test_a_job_s_stream_is_trimmed_and_expires_by_itself(redis_signals, job):
    for _ in range(STREAM_LENGTH * 5):
        redis_signals.tell(job)
    (stream,) = redis_signals.redis.scan_iter(f"*{job}")
    assert redis_signals.redis.xlen(stream) < STREAM_LENGTH * 3
    assert 0 < redis_signals.redis.ttl(stream) <= STREAM_TTL


@pytest.fixture
def away() -> Iterator[Signals]:
    """Signals whose Redis does not answer: the port is held, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        made = Signals(f"redis://127.0.0.1:{held.getsockname()[1]}/0")
        yield made
        made.close()


def test_without_redis_ringing_and_telling_go_unheard_and_raise_nothing(away, job):
    away.ring([Ring(1, waited=False)])
    away.tell(job)


def test_without_redis_waiting_and_looking_at_the_queue_say_so(away, job):
    with pytest.raises(RedisError):
        away.wait(job, "0", 1.0)
    with pytest.raises(RedisError):
        away.queue_is_empty()
