"""Notifications through Redis. They are hints, and the service does not rely on them.

Workers are notified of steps by Celery messages (storage/redis/messages.py). Waiters are notified of changed jobs by one channel, on which
the jobs' ids are published. A process in which requests wait has a channel of its own, on which the answers of small jobs come. Each of
them may be lost, because workers and waiters read the state from SQL.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from pipeline.ports import Cause
from storage.queue.ringing import Ring
from storage.redis.answers import AnswerTo, answer_message, read_answer
from storage.redis.errors import AWAY, redis_errors
from storage.redis.messages import Message, message_of, read_message
from storage.redis.silent import remember_silence
from storage.redis.watching import Watch, Watches
from storage.silent_peers import tcp_options

if TYPE_CHECKING:  # Celery takes 20 MB of memory, and only workers need it
    from celery import Celery

log = structlog.get_logger(__name__)

QUEUE = "steps"  #: Celery queue of steps
WAITED_QUEUE = "steps-waited"  #: queue of steps whose caller holds a connection; threads of their own read it
SLOW_QUEUE = "steps-slow"  #: queue of steps whose calls take minutes; threads of their own read it
CHANNEL = "extract-image:jobs"  #: channel for the ids of changed jobs
GOING_ON = " goes on"  #: suffix of the id of a job that has changed but not ended
TROUBLE = "extract-image:trouble"
CHECKED = "extract-image:checked"
FULL = "extract-image:full"
FULL_TTL = 900  #: seconds
TROUBLE_TTL = 20  #: seconds; longer than the wait between two calls of a job whose server is away
AGAIN_SECONDS = 1.0  #: the listener checks this often whether it is closed, and retries Redis after this time
PROCESSES = "extract-image:counts"
COUNTS_SECONDS = 2.0  #: timeout of Redis for writing or reading counts
COUNTS_TTL = 300  #: seconds for which the last counts of an ended process can be read
SENDING_SECONDS = 30.0  #: timeout of Redis for taking messages; without it, a Redis that hangs would block senders for ever
KEEPALIVE = {"socket_keepalive": True, "socket_keepalive_options": tcp_options(), "health_check_interval": 30}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobTrouble:
    """Why the last calls of a job could not be made. A call that is answered deletes it."""

    cause: Cause
    notice: str  #: what happened, where, and how to mend it
    times: int  #: how many calls of the job met this or another trouble since the last answer


def connect(url: str, *, seconds: float | None = None) -> redis.Redis:
    """A client of REDIS_URL (redis://, rediss://, unix://), with a large connection pool.

    `seconds`: timeout for an answer. Set it only for a client that sends no blocking commands.
    """
    options: dict[str, Any] = {} if url.startswith("unix:") else dict(KEEPALIVE)
    if seconds is not None:
        options |= {"socket_timeout": seconds, "retry": Retry(NoBackoff(), 1)}
    # With protocol 2, every server answers in the same format.
    return remember_silence(redis.Redis.from_url(url, max_connections=10_000, socket_connect_timeout=5, protocol=2, **options))


def celery_app(redis_url: str) -> Celery:
    """The Celery app of workers. What they and other processes send is written in storage/redis/messages.py.

    It has no result backend and accepts only JSON. A message is acknowledged when its step has ended, and only in the worker's memory:
    this bounds how many messages a worker takes. The supervisor announces a step again if its message is lost, and counts how often.
    """
    from celery import Celery

    app = Celery("extract-image", broker=_broker_url(redis_url), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=25,
        worker_enable_soft_shutdown_on_idle=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Without it, a worker that connects again while Redis is full (OutOfMemoryError) ends, with code 0.
        broker_channel_error_retry=True,
        broker_transport_options={
            # The queue is in SQL, so Redis need not keep the messages that are worked on. To keep them took two trips a message.
            "ack_emulation": False,
            "max_connections": 1000,  # kombu's default is 10
            # Retry once, without a pause. kombu's default retries for 6 s, and would block an HTTP request for that time.
            "max_retries": 1,
            "interval_start": 0,
            "socket_timeout": 30,  # seconds; without it, a Redis that hangs would block senders for ever
            **({} if redis_url.startswith("unix:") else KEEPALIVE),
        },
    )
    if redis_url.startswith("rediss://"):
        # redis-py verifies certificates by default. kombu must be told to, and does not read the TLS parameters in the URL.
        given = parse_qs(urlsplit(redis_url).query)
        trusted = given.get("ssl_ca_certs", [None])[0]
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": trusted}
    return app


def _broker_url(redis_url: str) -> str:
    if not redis_url.startswith("unix://"):
        return redis_url.partition("?")[0] if redis_url.startswith("rediss://") else redis_url
    return f"redis+socket://{redis_url.removeprefix('unix://')}"


class Signals:
    """Announces steps to workers, and notifies waiters of changed jobs. Thread-safe; a process makes one."""

    def __init__(self, redis_url: str) -> None:
        self.redis = connect(redis_url)
        # This client has a timeout, so that a Redis which hangs can't block a process's exit or a request for /metrics.
        self._counts = connect(redis_url, seconds=COUNTS_SECONDS)
        self._sending = connect(redis_url, seconds=SENDING_SECONDS)
        self._takes_answers = True
        self._answers = f"{CHANNEL}:{secrets.token_hex(8)}"  # only this process listens to this channel
        self._watches = Watches()
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._listener: threading.Thread | None = None  # the first watch starts it; workers never watch

    def ring(self, rings: Iterable[Ring]) -> None:
        """Sends a message for each step. If Redis is unavailable, the supervisor announces the steps later."""
        messages: dict[str, list[bytes]] = {}
        for ring in rings:
            queue = SLOW_QUEUE if ring.slow else WAITED_QUEUE if ring.waited else QUEUE
            messages.setdefault(queue, []).append(message_of(self._message(ring), queue))
        try:
            for queue, those in messages.items():
                self._sending.lpush(queue, *those)
        except AWAY as error:
            log.warning("not_rung", steps=sum(map(len, messages.values())), reason=repr(error))

    def ring_early(self, ring: Ring) -> bool:
        """Sends the message of a waited step that is about to be committed. Returns whether Redis has taken it."""
        message = replace(self._message(ring), early=True)
        try:
            self._sending.lpush(WAITED_QUEUE, message_of(message, WAITED_QUEUE))
        except AWAY as error:
            log.warning("not_rung_early", step=ring.step, reason=repr(error))
            return False
        return True

    def _message(self, ring: Ring) -> Message:
        # A process in which nobody waits does not listen: a worker or a supervisor.
        listens = self._listener is not None and self._takes_answers
        answer_to = self._answers if ring.waited and listens else None
        return Message(ring.step, ring.input, ring.traceparent, answer_to=answer_to)

    def take(self, queue: str, *, seconds: float) -> Message | None:
        """Takes a message off the queue. Waits for one for `seconds` at most.

        None: there was no message, or one that announces no step. Raises one of AWAY.
        """
        found: Any = self._sending.brpop([queue], timeout=seconds)
        if found is None:
            return None
        try:
            return read_message(found[1])
        except ValueError as error:
            log.warning("message_dropped", queue=queue, reason=str(error))
            return None

    @redis_errors()
    def check(self) -> None:
        """Raises Transient or Permanent if Redis takes no writes: it is away, full, or a read-only copy."""
        self.redis.set(CHECKED, "", ex=60)

    def note_full_storage(self) -> None:
        """Notes that scratch or the database has refused something because it is full. It is forgotten after FULL_TTL."""
        with suppress(*AWAY):
            self._counts.set(FULL, "", ex=FULL_TTL)

    @redis_errors()
    def storage_is_full(self) -> bool:
        """Whether full storage was noted within FULL_TTL. Raises Transient and Permanent."""
        return bool(self._counts.exists(FULL))

    @redis_errors()
    def queue_is_empty(self, *, slow: bool = False) -> bool:
        """Whether no message is in the queues. If so, announced steps that are still due have lost their messages.

        `slow`: look at the queue of slow steps instead of the others. Raises Transient and Permanent.
        """
        return not any(self.redis.llen(queue) for queue in ((SLOW_QUEUE,) if slow else (QUEUE, WAITED_QUEUE)))

    def tell(self, job: str, *, ended: bool = True, answered: bool = False, answer: AnswerTo | None = None) -> None:
        """Notifies the job's waiters that the job has changed. If Redis is unavailable, waiters find the change in SQL.

        `ended`: pass False only if the job certainly has not ended. Then waiters for the job's end are not woken. `answered`: the
        model has answered a call of the job, so its trouble is over. `answer`: what the process on its channel may answer with.
        """
        told = job if ended else job + GOING_ON
        carried = answer_message(job, answer.success) if answer else None
        try:
            if answered or carried:
                pipe = self.redis.pipeline(transaction=False)
                if answer and carried:
                    pipe.publish(answer.channel, carried)
                if answered:
                    pipe.delete(f"{TROUBLE}:{job}")
                pipe.publish(CHANNEL, told)
                # This Redis user may have the one channel and not the other. Then whoever waits reads SQL.
                found = pipe.execute(raise_on_error=False)
                if isinstance(found[-1], Exception):
                    raise found[-1]
            else:
                self.redis.publish(CHANNEL, told)
        except AWAY as error:
            log.warning("not_told", job=job, reason=repr(error))

    def note_trouble(self, job: str, cause: Cause, notice: str) -> None:
        """Notes why a call of the job could not be made, and wakes its waiters. If Redis is unavailable, nothing is noted."""
        key = f"{TROUBLE}:{job}"
        try:
            pipe = self.redis.pipeline(transaction=False)
            pipe.hset(key, mapping={"cause": cause.value, "notice": notice})
            pipe.hincrby(key, "times", 1)
            pipe.expire(key, TROUBLE_TTL)
            pipe.publish(CHANNEL, job)
            pipe.execute()
        except AWAY as error:
            log.warning("not_told", job=job, reason=repr(error))

    @redis_errors()
    def trouble_of(self, job: str) -> JobTrouble | None:
        """Why the last calls of the job could not be made. None if they could, or were not made lately.

        Raises Transient and Permanent.
        """
        found: Any = self._counts.hgetall(f"{TROUBLE}:{job}")
        values = {name.decode(): value.decode() for name, value in found.items()}
        if not {"cause", "notice", "times"} <= values.keys():
            return None
        return JobTrouble(cause=Cause(values["cause"]), notice=values["notice"], times=int(values["times"]))

    def watch(self, job: str, *, end_only: bool = False) -> AbstractContextManager[Watch]:
        """Receives the job's notifications from now on. While Redis is unavailable, its waits end about once a second."""
        with self._starting:
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
                self._listener.start()
        return self._watches.watch(job, end_only=end_only)

    def _listen(self) -> None:
        """Passes notifications to the watches until `close`.

        Notifications without a subscription are lost. So it wakes all watches when the subscription fails or starts.
        """
        while not self._closed.is_set():
            try:
                with self.redis.pubsub() as subscription:  # type: ignore[no-untyped-call]
                    subscription.subscribe(CHANNEL, *([self._answers] if self._takes_answers else []))
                    while not self._closed.is_set():
                        self._hear(subscription.get_message(timeout=AGAIN_SECONDS))
            except NoPermissionError as error:
                log.warning("not_heard", reason=repr(error))
                self._watches.tell_all()
                if not self._takes_answers:
                    self._closed.wait(AGAIN_SECONDS)
                self._takes_answers = False  # this Redis user may have the one channel and not the other
            except AWAY as error:
                log.warning("not_heard", reason=repr(error))
                self._watches.tell_all()
                self._closed.wait(AGAIN_SECONDS)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        if message["type"] == "message":
            if message["channel"].decode() == self._answers:
                self._hear_answer(message["data"])
                return
            told = message["data"].decode()
            self._watches.tell(told.removesuffix(GOING_ON), ended=not told.endswith(GOING_ON))
        else:  # the subscription has started, for the first time or again
            self._watches.tell_all()

    def _hear_answer(self, text: bytes) -> None:
        try:
            job, success = read_answer(text)
        except ValueError as error:
            log.warning("answer_dropped", reason=str(error))
            return
        self._watches.answer(job, success)

    @redis_errors()
    def publish(self, process: str, text: str) -> None:
        """Publishes the counts of a process, and replaces its earlier ones. Raises Transient and Permanent."""
        pipe = self._counts.pipeline(transaction=False)
        pipe.sadd(PROCESSES, process)
        pipe.set(_counts(process), text, ex=COUNTS_TTL)
        pipe.execute()

    @redis_errors()
    def published(self) -> dict[str, str]:
        """The counts that each process has published within COUNTS_TTL. Raises Transient and Permanent."""
        known: Any = self._counts.smembers(PROCESSES)
        processes = sorted(name.decode() for name in known)
        texts: Any = self._counts.mget([_counts(process) for process in processes]) if processes else []
        found = {process: text.decode() for process, text in zip(processes, texts, strict=True) if text is not None}
        gone = [process for process in processes if process not in found]
        if gone:
            self._counts.srem(PROCESSES, *gone)
        return found

    def close(self) -> None:
        self._closed.set()
        if self._listener is not None:
            self._listener.join()
        self.redis.close()
        self._counts.close()
        self._sending.close()


def _counts(process: str) -> str:
    return f"{PROCESSES}:{process}"


def owner_name() -> str:
    """The name of this process in a lease's `owner` column. People who read the table use it."""
    return f"{socket.gethostname()}:{os.getpid()}"
