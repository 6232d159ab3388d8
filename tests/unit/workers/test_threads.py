"""The threads of a pool run before it gets work. If the system does not allow all of them, none does, and the pool works all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from workers.threads import StartedTaskPool, started_pool


def running(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], None]:
    """Has the system start only so many threads named `few`, and then raise the error."""
    start = threading.Thread.start

    def allow(most: int, error: BaseException) -> None:
        def start_some(thread: threading.Thread) -> None:
            if thread.name.startswith("few") and running("few") >= most:
                raise error
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_some)

    return allow


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


def test_a_pool_that_may_not_have_all_threads_leaves_room_for_others_and_starts_them_when_it_gets_work(allow):
    allow(2, RuntimeError("can't start new thread"))
    with capture_logs() as logs, started_pool(5, "few") as pool:
        assert [(line["event"], line["wanted"]) for line in logs] == [("few_threads", 5)]
        assert running("few") == 0
        both = threading.Barrier(2)
        for done in [pool.submit(both.wait, 20) for _ in range(2)]:
            done.result(timeout=20)
        assert running("few") == 2


def test_an_interruption_leaves_no_thread(allow):
    allow(2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        started_pool(5, "few")
    assert running("few") == 0
