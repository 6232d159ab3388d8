"""A worker outlives a full Redis. The torture found that Celery ended it, with code 0."""

from __future__ import annotations

from redis.exceptions import OutOfMemoryError

from storage.redis.signals import celery_app


def test_a_worker_takes_a_full_redis_for_an_error_after_which_it_connects_again():
    app = celery_app("redis://127.0.0.1:9/0")
    with app.connection() as connection:
        assert app.conf.broker_channel_error_retry
        assert issubclass(OutOfMemoryError, connection.channel_errors)
