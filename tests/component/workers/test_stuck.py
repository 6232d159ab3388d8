"""A thread can't be stopped. So a worker process in which one is stuck ends, and another worker gets its steps."""

from __future__ import annotations

import subprocess
import sys

import pytest

from storage.queue import steps
from storage.redis.signals import Signals
from testbed import ROOT, environment
from tests.rows import new_account, new_job, ring, step_ids, step_row
from workers.wiring import EX_TEMPFAIL


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_worker_whose_thread_is_stuck_in_a_step_drains_and_is_to_be_started_again(database, database_url, redis_url, tmp_path):
    """Everything but the fetch is as in a real worker. Its exit code asks for a new process, and its step is free for that."""
    [step] = step_ids(database, new_job(database, new_account(database)))
    signals = Signals(redis_url)
    signals.ring(ring(database))
    signals.close()
    given = environment(tmp_path / "data", DATABASE_URL=database_url, REDIS_URL=redis_url, ENGINE="ocr")
    log = tmp_path / "worker.log"
    with log.open("w") as out:
        child = subprocess.Popen([sys.executable, "-m", "tests.fakes.stuck_worker"], cwd=ROOT, env=given, stdout=out, stderr=out)
        try:
            assert child.wait(timeout=60) == EX_TEMPFAIL, log.read_text()
        finally:
            child.kill()
            child.wait()
    assert "step_stuck" in log.read_text()
    assert step_row(database, step).state == "leased"
    with database.write() as connection:
        assert steps.reclaim_expired(connection) == 1
