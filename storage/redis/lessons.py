"""What model servers have taught the engines, shared by all workers through Redis.

While Redis is unavailable, each process remembers by itself. Nothing is lost by that but a few requests that are refused again.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
import structlog

from pipeline.engines.lessons import KEPT_SECONDS, MOST_TOPICS, LocalLessons
from storage.redis.errors import AWAY
from storage.redis.signals import connect

log = structlog.get_logger(__name__)

PREFIX = "extract-image:lesson"
ANSWER_SECONDS = 2.0  #: timeout for an answer of Redis
AWAY_SECONDS = 5.0  #: pause before an unavailable Redis is tried again
FRESH_SECONDS = 1.0  #: a lesson that was read within this time is not read again; each call of a model needs several


class RedisLessons:
    """The lessons of all processes that use the same Redis. Implements pipeline.ports.Lessons. Thread-safe."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back."""
        self._redis = client
        self._clock = clock
        self._here = LocalLessons(clock=clock)
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, Mapping[str, Any]]] = {}  # topic → until when its lesson is fresh, and the lesson
        self._away_until = float("-inf")  # by the clock; until then, an unavailable Redis is not tried

    @classmethod
    def of(cls, url: str) -> RedisLessons:
        """Lessons with their own client of the Redis at `url`."""
        return cls(connect(url, seconds=ANSWER_SECONDS))

    def known(self, *topics: str, fresh: bool = False) -> list[Mapping[str, Any]]:
        now = self._clock()
        read = [] if fresh else [kept[1] for topic in topics if (kept := self._read.get(topic)) and now < kept[0]]
        if len(read) == len(topics):
            return read
        here = self._here.known(*topics)
        if now < self._away_until:
            return here
        try:
            texts: Any = self._redis.mget([_key(topic) for topic in topics])
        except AWAY as error:
            self._note_away(error)
            return here
        found = [json.loads(text) if text is not None else own for text, own in zip(texts, here, strict=True)]
        for topic, lesson in zip(topics, found, strict=True):
            self._note(topic, lesson, now)
        return found

    def learn(self, topic: str, lesson: Mapping[str, Any]) -> None:
        self._here.learn(topic, lesson)
        self._note(topic, lesson, self._clock())
        if self._clock() < self._away_until:
            return
        try:
            self._redis.set(_key(topic), json.dumps(lesson), ex=int(KEPT_SECONDS))
        except AWAY as error:
            self._note_away(error)

    def close(self) -> None:
        self._redis.close()

    def _note(self, topic: str, lesson: Mapping[str, Any], at: float) -> None:
        """Keeps a lesson as it was at this time, unless it was learnt here since, while Redis was being read."""
        fresh_until = at + FRESH_SECONDS
        with self._lock:
            if len(self._read) >= MOST_TOPICS:
                self._read = {}
            kept = self._read.get(topic)
            if kept is None or kept[0] <= fresh_until:
                self._read[topic] = (fresh_until, lesson)

    def _note_away(self, error: Exception) -> None:
        log.warning("lessons_not_shared", reason=repr(error))
        self._away_until = self._clock() + AWAY_SECONDS


def _key(topic: str) -> str:
    """The key of a topic. It is a hash, because an address may hold a password."""
    return f"{PREFIX}:{hashlib.sha256(topic.encode()).hexdigest()[:32]}"
