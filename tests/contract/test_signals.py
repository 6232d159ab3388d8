"""What the doorbell promises, and the Board that it is too: the one in memory and the one in Redis."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pipeline.errors import Transient
from pipeline.ports import Cause
from storage.account.accounts import random_id
from storage.queue.ringing import Ring
from storage.redis.answers import MOST_CHARACTERS, AnswerTo, Success, answer_message, read_answer
from storage.redis.embedded import EmbeddedRedis
from storage.redis.messages import TASK, Message, message_of
from storage.redis.signals import (
    CHANNEL,
    COUNTS_TTL,
    FULL,
    FULL_TTL,
    PROCESSES,
    QUEUE,
    SLOW_QUEUE,
    WAITED_QUEUE,
    JobTrouble,
    Signals,
    celery_app,
)
from tests.fakes.signals import MemorySignals
from tests.rows import eventually

LONG = 20.0  # seconds: a wait that nothing wakes would show
SHORT = 0.05  # seconds: of a wait that is to end by itself


@pytest.fixture(params=["memory", "redis"])
def signals(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What tells and what watches may be two processes: of the real one there are two."""
    if request.param == "memory":
        yield MemorySignals()
        return
    made = Signals(request.getfixturevalue("redis_url"))
    made.redis.delete(QUEUE, WAITED_QUEUE, SLOW_QUEUE)
    with made.watch("job_first") as first:
        # The start of a subscription wakes every watch, and must not wake those of the test. It is heard before what is told then.
        subscribed(made)
        made.tell("job_first", answer=AnswerTo(made._answers, SUCCEEDED))
        eventually(lambda: first.answer)  # only a message can cause it
    yield made
    made.redis.delete(QUEUE, WAITED_QUEUE, SLOW_QUEUE)
    made.close()


def subscribed(signals: Signals) -> None:
    """Until Redis has the one subscription of the one who watches."""
    eventually(lambda: signals.redis.pubsub_numsub(CHANNEL)[0][1] == 1)


def in_threads(actions: list[Callable[[], bool]]) -> tuple[list[threading.Thread], list[bool]]:
    given: list[bool] = []
    threads = [threading.Thread(target=lambda action=action: given.append(action())) for action in actions]
    for thread in threads:
        thread.start()
    return threads, given


def test_what_processes_put_up_stands_side_by_side_and_the_later_in_place_of_the_earlier(signals):
    before = signals.published()
    for process, text in (("worker@a:1", "1"), ("web@a:2", "1"), ("worker@a:1", '{"é": 2}')):
        signals.publish(process, text)
    assert signals.published() == {**before, "worker@a:1": '{"é": 2}', "web@a:2": "1"}


def test_a_job_s_trouble_is_counted_and_an_answer_ends_it(signals):
    job = f"job_{random_id('', 8)}"
    assert signals.trouble_of(job) is None
    signals.note_trouble(job, Cause.AWAY, "Not there: é.")
    signals.note_trouble(job, Cause.ACCOUNT, "Bad key.")
    assert signals.trouble_of(job) == JobTrouble(cause=Cause.ACCOUNT, notice="Bad key.", times=2)
    signals.tell(job, ended=False)
    assert signals.trouble_of(job) is not None
    signals.tell(job, ended=False, answered=True)
    assert signals.trouble_of(job) is None


def test_who_waits_for_a_job_s_end_is_woken_by_its_trouble_too(signals):
    with signals.watch("job_first", end_only=True) as watch:
        while watch.wait(SHORT):
            pass
        signals.note_trouble("job_first", Cause.AWAY, "Not there.")
        assert watch.wait(LONG)
    signals.tell("job_first", answered=True)


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


def test_what_is_told_after_the_watch_began_is_heard_by_its_wait(signals, job):
    with signals.watch(job) as watch:
        signals.tell(job)
        assert watch.wait(LONG)


def test_a_wait_ends_when_its_time_is_over(signals, job):
    with signals.watch(job) as watch:
        assert not watch.wait(SHORT)
        assert not watch.wait(0)


def test_one_event_wakes_all_who_wait(signals, job):
    with ExitStack() as stack:
        watches = [stack.enter_context(signals.watch(job)) for _ in range(6)]
        threads, given = in_threads([partial(watch.wait, LONG) for watch in watches])
        signals.tell(job)
        for thread in threads:
            thread.join()
        assert given == [True] * 6


def test_what_was_told_between_two_waits_is_one_wake(signals, job):
    with signals.watch(job) as watch, signals.watch(job) as other:
        for _ in range(5):
            signals.tell(job)
        signals.tell(last := random_id("job_", 24))
        with signals.watch(last) as marker:  # heard after all that was told before it
            signals.tell(last)
            assert marker.wait(LONG)
        assert watch.wait(LONG)
        assert not watch.wait(SHORT)
        assert other.wait(0)


def test_an_event_of_another_job_wakes_nobody(signals, job):
    with signals.watch(job) as watch, signals.watch(other := random_id("job_", 24)) as marker:
        signals.tell(other)
        assert marker.wait(LONG)
        assert not watch.wait(0)


def test_who_waits_for_the_end_alone_sleeps_until_it_may_have_come(signals, job):
    with signals.watch(job) as watch, signals.watch(job, end_only=True) as patient:
        signals.tell(job, ended=False)
        assert watch.wait(LONG)
        assert not patient.wait(0)
        signals.tell(job)
        assert patient.wait(LONG)
        assert watch.wait(LONG)


def test_a_watch_that_is_over_leaves_nothing(signals, job):
    with signals.watch(job), signals.watch(job):
        pass
    assert signals._watches._of == {}


def test_the_queue_is_empty_until_something_is_rung(signals):
    assert signals.queue_is_empty()
    signals.ring([])
    assert signals.queue_is_empty()
    signals.ring(Ring(step, waited=False) for step in (7,))
    assert not signals.queue_is_empty()


def test_a_ring_for_a_waiting_caller_counts_as_a_message_too(signals):
    signals.ring([Ring(7, waited=True)])
    assert not signals.queue_is_empty()


def test_a_ring_of_a_slow_step_is_a_message_of_another_queue(redis_signals):
    redis_signals.ring([Ring(7, waited=False, slow=True)])
    assert redis_signals.queue_is_empty()
    assert not redis_signals.queue_is_empty(slow=True)


@pytest.fixture
def redis_signals(redis_url: str) -> Iterator[Signals]:
    made = Signals(redis_url)
    made.redis.delete(QUEUE, WAITED_QUEUE, SLOW_QUEUE)
    yield made
    made.redis.delete(QUEUE, WAITED_QUEUE, SLOW_QUEUE)
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


def test_the_message_that_was_rung_first_is_taken_first_and_once(redis_signals):
    redis_signals.ring([Ring(41, waited=False), Ring(42, waited=False), Ring(43, waited=True)])
    assert [redis_signals.take(QUEUE, seconds=10) for _ in range(2)] == [Message(41), Message(42)]
    assert redis_signals.take(QUEUE, seconds=0.01) is None
    assert redis_signals.take(WAITED_QUEUE, seconds=10) == Message(43)
    assert redis_signals.queue_is_empty()


def test_a_message_names_the_images_that_may_be_staged_at_once(redis_signals):
    early = {"input": "job_1/in-c0", "traceparent": "00-1-2-01"}
    redis_signals.ring([Ring(41, waited=True, **early), Ring(42, waited=True)])
    assert redis_signals.take(WAITED_QUEUE, seconds=10) == Message(41, **early)
    assert redis_signals.take(WAITED_QUEUE, seconds=10) == Message(42)


@pytest.mark.parametrize("strange", [3, ["job_1/in-c0"], {"a": 1}, None])
def test_a_header_that_is_no_text_is_not_read(redis_signals, strange):
    text = json.loads(message_of(Message(41), WAITED_QUEUE))
    text["headers"]["input"] = text["headers"]["traceparent"] = strange
    redis_signals.redis.lpush(WAITED_QUEUE, json.dumps(text))
    assert redis_signals.take(WAITED_QUEUE, seconds=10) == Message(41)


def test_a_worker_of_the_version_before_takes_such_a_message(redis_signals, redis_url):
    """It reads the body, as Celery does."""
    redis_signals.ring([Ring(41, waited=True, input="job_1/in-c0")])
    with celery_app(redis_url) as app, app.connection_for_read() as connection:
        simple = connection.SimpleQueue(WAITED_QUEUE)
        message = simple.get(timeout=10)
        message.ack()
        simple.close()
    assert message.payload[:2] == [[41], {}]


@pytest.mark.parametrize(
    "message", [b"", b"hello", b"[]", b"{}", b'{"body": 3}', b'{"body": "W10="}', b'{"body": "W1tdLHt9LHt9XQ=="}']
)
def test_a_message_that_announces_no_step_is_dropped(redis_signals, message):
    redis_signals.redis.lpush(QUEUE, message)
    assert redis_signals.take(QUEUE, seconds=10) is None
    assert redis_signals.queue_is_empty()


def test_a_worker_leaves_nothing_in_redis_of_the_messages_that_it_takes(redis_signals, redis_url):
    """SQL is the queue. What else Redis kept would cost two trips a message."""
    with celery_app(redis_url) as app, app.connection_for_read() as connection:
        simple = connection.SimpleQueue(QUEUE)  # Redis keeps that there is a queue, once for all messages
        before = set(redis_signals.redis.keys())
        redis_signals.ring([Ring(41, waited=False)])
        message = simple.get(timeout=10)
        assert set(redis_signals.redis.keys()) <= before
        message.ack()
        simple.close()


def test_a_message_says_what_celery_would_have_written(redis_signals, redis_url):
    """Only ids are other, and a part that says nothing may be missing."""
    redis_signals.ring([Ring(41, waited=False)])
    with celery_app(redis_url) as app:
        app.send_task(TASK, args=[41], queue=QUEUE, ignore_result=True)
    [theirs, ours] = [json.loads(message) for message in redis_signals.redis.lrange(QUEUE, 0, -1)]
    for message in (ours, theirs):
        ids = {message["headers"].pop(name) for name in ("id", "root_id")} | {message["properties"].pop("correlation_id")}
        assert len(ids) == 1
        assert message["properties"].pop("delivery_tag") not in ids
        message["properties"].pop("reply_to")
    says_nothing = {"shadow", "group_index", "origin", "replaced_task_nesting", "stamped_headers", "stamps"}
    assert theirs["headers"].keys() - ours["headers"].keys() == says_nothing
    assert ours == {**theirs, "headers": {name: theirs["headers"][name] for name in ours["headers"]}}


def test_a_watch_is_woken_by_another_process_and_however_many_there_are_hold_one_connection(redis_signals, redis_url, job):
    other = Signals(redis_url)
    try:
        with ExitStack() as stack:
            watches = [stack.enter_context(other.watch(job)) for _ in range(50)]
            subscribed(other)
            for watch in watches:
                watch.wait(0)  # as the subscription began
            redis_signals.tell(job)
            assert all(watch.wait(LONG) for watch in watches)
            assert len(other.redis.connection_pool._in_use_connections) == 1
    finally:
        other.close()


def test_when_the_connection_breaks_all_are_woken_and_hear_again(redis_signals, job):
    with redis_signals.watch(job) as watch:
        subscribed(redis_signals)
        watch.wait(0)
        redis_signals.redis.client_kill_filter(_type="pubsub")
        assert watch.wait(LONG)
        subscribed(redis_signals)
        while watch.wait(SHORT):
            pass
        redis_signals.tell(job)
        assert watch.wait(LONG)


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


def test_without_redis_whoever_waits_is_woken_to_look_elsewhere(away, job):
    with away.watch(job) as watch:
        assert watch.wait(LONG)
        assert watch.wait(LONG)


def test_a_full_redis_is_no_working_one(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        made = Signals(server.url)
        made.check()
        made.redis.config_set("maxmemory", "1")
        made.redis.ping()
        with pytest.raises(Transient, match="Redis is full"):
            made.check()
        made.redis.config_set("maxmemory", "0")
        made.check()
        made.close()


def test_full_storage_is_noted_for_a_while(redis_signals):
    redis_signals.redis.delete(FULL)
    assert not redis_signals.storage_is_full()
    redis_signals.note_full_storage()
    assert redis_signals.storage_is_full()
    assert 0 < redis_signals.redis.ttl(FULL) <= FULL_TTL
    redis_signals.redis.delete(FULL)


def test_without_redis_full_storage_is_not_noted_and_nothing_is_raised(away):
    away.note_full_storage()


def test_without_redis_looking_at_the_queue_says_so(away):
    with pytest.raises(Transient):
        away.queue_is_empty()


SUCCEEDED = Success(images=2, credits=12, prompt="p é \x00", result='[{"a": 1}, "ü"]')


def channel_of(signals: Any) -> str:
    """Where the process wants its answers, as the message of a step says it."""
    if isinstance(signals, MemorySignals):
        return ""
    signals.ring([Ring(7, waited=True)])
    message = signals.take(WAITED_QUEUE, seconds=10)
    assert message
    assert message.answer_to
    return str(message.answer_to)


def test_the_answer_of_a_job_is_told_to_the_process_that_waits_for_it(signals, job):
    with signals.watch(job, end_only=True) as watch:
        signals.tell(job, answer=AnswerTo(channel_of(signals), SUCCEEDED))
        eventually(lambda: watch.answer)
        assert watch.wait(0)
        assert watch.answer == SUCCEEDED


def test_an_answer_is_for_the_waiters_of_its_job(signals, job):
    with signals.watch(job) as watch, signals.watch(other := random_id("job_", 24)) as marker:
        signals.tell(other, answer=AnswerTo(channel_of(signals), SUCCEEDED))
        assert marker.wait(LONG)
        assert not watch.wait(0)
        assert watch.answer is None


def test_another_process_s_waiters_hear_that_the_job_has_ended(redis_signals, redis_url, job):
    other = Signals(redis_url)
    try:
        with redis_signals.watch(job) as watch, other.watch(job) as far:
            eventually(lambda: redis_signals.redis.pubsub_numsub(CHANNEL)[0][1] == 2)
            for each in (watch, far):
                while each.wait(SHORT):
                    pass
            other.tell(job, answered=True, answer=AnswerTo(channel_of(redis_signals), SUCCEEDED))
            eventually(lambda: watch.answer)
            assert far.wait(LONG)
            assert (watch.answer, far.answer) == (SUCCEEDED, None)
    finally:
        other.close()


@pytest.mark.parametrize("part", ["prompt", "result"])
def test_a_long_answer_is_read_from_sql(signals, job, part):
    long = replace(SUCCEEDED, **{part: "x" * MOST_CHARACTERS})
    with signals.watch(job) as watch:
        signals.tell(job, answer=AnswerTo(channel_of(signals), long))
        assert watch.wait(LONG)
        assert watch.answer is None


def test_an_answer_is_read_as_it_was_sent(job):
    sent = answer_message(job, SUCCEEDED)
    assert sent is not None
    assert read_answer(sent) == (job, SUCCEEDED)


def test_what_is_no_answer_is_dropped_and_the_next_one_is_heard(redis_signals, job):
    with redis_signals.watch(job) as watch:
        subscribed(redis_signals)
        while watch.wait(SHORT):
            pass
        channel = channel_of(redis_signals)
        for text in (
            b"",
            b"hello",
            b"[]",
            b"{}",
            b"3",
            b'{"job": "j", "images": "x", "credits": 1, "prompt": "p", "result": "r"}',
            b'{"job": "j"}',
            b"\xff",
        ):
            redis_signals.redis.publish(channel, text)
        redis_signals.tell(job, answer=AnswerTo(channel, SUCCEEDED))
        eventually(lambda: watch.answer)
        assert watch.answer == SUCCEEDED


def test_only_a_process_that_waits_wants_answers(redis_signals):
    """Supervisors and workers announce steps too, and nobody waits there."""
    redis_signals.ring([Ring(7, waited=True, input="job_1/in-c0")])
    assert redis_signals.take(WAITED_QUEUE, seconds=10) == Message(7, input="job_1/in-c0")


def test_a_step_is_announced_before_its_commit_with_all_that_its_worker_needs(redis_signals, job):
    with redis_signals.watch(job):
        assert redis_signals.ring_early(Ring(7, waited=True, input="job_1/in-c0", traceparent="00-1-2-01"))
        message = redis_signals.take(WAITED_QUEUE, seconds=10)
        assert message == Message(
            7, input="job_1/in-c0", traceparent="00-1-2-01", early=True, answer_to=channel_of(redis_signals)
        )


@pytest.mark.parametrize("strange", [1, "true", None, [True]])
def test_a_message_is_early_only_if_it_says_so(redis_signals, strange):
    text = json.loads(message_of(Message(41), WAITED_QUEUE))
    text["headers"]["early"] = strange
    redis_signals.redis.lpush(WAITED_QUEUE, json.dumps(text))
    assert redis_signals.take(WAITED_QUEUE, seconds=10) == Message(41)


def test_a_user_of_redis_who_may_not_have_the_answers_hears_of_the_end_of_jobs(tmp_path, job):
    """The users of an own Redis may be restricted to the channel that was there before."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        admin = Signals(server.url)
        admin.redis.execute_command("ACL", "SETUSER", "default", "resetchannels", f"&{CHANNEL}")
        made = Signals(server.url)
        with made.watch(job) as watch:
            eventually(lambda: admin.redis.pubsub_numsub(CHANNEL)[0][1] == 1)
            while watch.wait(SHORT):
                pass
            made.ring([Ring(7, waited=True)])
            assert made.take(WAITED_QUEUE, seconds=10) == Message(7)
            admin.tell(job)
            assert watch.wait(LONG)
        made.close()
        admin.close()
