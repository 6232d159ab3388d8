"""The threads of a pool run before it gets work, and a pool that may not have all of them works with those it has."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from workers.threads import StartedTaskPool, started_pool


def running(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_all_threads_of_a_pool_run_before_it_gets_work():
    with started_pool(5, "early") as pool:
        assert running("early") == 5
        assert pool.submit(sum, [1, 2]).result(timeout=20) == 3
        assert running("early") == 5


def test_so_do_those_of_celerys_pool():
    pool = StartedTaskPool(3)
    try:
        assert pool.info["threads"] == 3
        found: list[str | None] = []
        pool.on_apply(found.append, ("ran",), callback=found.append).get(timeout=20)
        assert found == ["ran", None]
    finally:
        pool.on_stop()


def test_a_pool_that_may_not_have_all_threads_works_with_those_it_has(monkeypatch: pytest.MonkeyPatch):
    start, left = threading.Thread.start, [2]

    def start_two(thread: threading.Thread) -> None:
        if thread.name.startswith("few"):
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with capture_logs() as logs, started_pool(5, "few") as pool:
        assert [(line["event"], line["wanted"]) for line in logs] == [("few_threads", 5)]
        assert running("few") == 2
        left[0] = 1  # the system allows one more
        assert pool.submit(sum, [1, 2]).result(timeout=20) == 3
