"""Who works, and when: the Celery app, one thin function per step, the supervisor."""
