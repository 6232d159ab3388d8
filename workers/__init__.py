"""The worker and supervisor processes: the Celery app, one thin function per step, the supervisor."""
