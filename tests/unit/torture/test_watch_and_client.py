"""What the torture records is what happened: whose steps are a dead process's, and what a stream of events showed."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from testbed import pictures
from tests.rows import claimed, eventually, new_account, new_job, now, set_steps, step_ids
from tests.torture.load.client import Client
from tests.torture.locked import Locked
from tests.torture.plan import make_plan
from tests.torture.planned_jobs import Job
from tests.torture.rows import Watch

LEASE_SECONDS = 15.0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_step_whose_lease_is_renewed_is_not_measured_as_a_dead_process_s(database):
    """A process that was paused comes back before its step was reclaimed, and works on it."""
    renewed, dead, later = step_ids(database, new_job(database, new_account(database), images=3))
    owner = "worker-1:7"
    for step in (renewed, dead, later):
        claimed(database, step, owner=owner, lease_ms=int(LEASE_SECONDS * 1000))
    watch = Watch(database, "redis://127.0.0.1:9/0", 1, lease_seconds=LEASE_SECONDS)
    watch.held("worker-1", owner)
    watch.start()
    try:
        eventually(lambda: len(watch._watched) == 3)
        set_steps(database, renewed, lease_until=now(database) + 60_000)
        eventually(lambda: len(watch._watched) == 2)
        set_steps(database, dead, state="ready")
        eventually(lambda: len(watch.reclaims) == 1)
        set_steps(database, renewed, later, state="ready")
        eventually(lambda: len(watch.reclaims) == 2)
    finally:
        watch.close()
    assert [row["step"] for row in watch.reclaims] == [dead, later]


def test_the_time_in_which_a_process_holds_the_lock_of_sqlite_is_noted(tmp_path):
    file = tmp_path / "some.db"
    driver = sqlite3.connect(file, isolation_level=None)
    driver.execute("PRAGMA journal_mode=WAL")
    locked = Locked(file, long_seconds=0.5)
    locked.start()
    try:
        driver.execute("BEGIN IMMEDIATE")
        began = time.time()
        eventually(lambda: locked._since is not None and time.time() - locked._since > 0.5)
        driver.execute("ROLLBACK")
        ended = time.time()
        eventually(lambda: len(locked.windows) == 1)
    finally:
        locked.close()
        driver.close()
    [(start, end)] = locked.windows
    assert began - 1 < start < ended <= end


class Service(BaseHTTPRequestHandler):
    """Shows a job that runs at first. Its first stream breaks off without a word, and then the job has ended."""

    protocol_version = "HTTP/1.1"
    streams = 0

    def do_GET(self) -> None:
        if self.path.endswith("/events"):
            Service.streams += 1
            status, succeeded = ("running", 0) if Service.streams == 1 else ("succeeded", 1)
            shown = {"id": "job_1", "status": status, "counts": {"succeeded": succeeded, "failed": 0}}
            self.answer(f"data: {json.dumps(shown)}\n\n".encode(), "text/event-stream")
        elif self.path.endswith("/results"):
            self.answer(json.dumps({"results": None, "errors": [], "imageCount": 1}).encode())
        else:
            shown = {
                "id": "job_1",
                "status": "succeeded",
                "finishedAt": "now",
                "counts": {},
                "usage": {"credits": 11, "cacheHits": 0},
            }
            self.answer(json.dumps(shown).encode())

    def answer(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_a_stream_that_breaks_off_is_read_again_until_it_shows_the_end(tmp_path):
    job = Job(name="job-1", account=0, at=0, numbers=(1,), form="records", streams=True)
    plan = make_plan(1, short=True, processes_only=False, disks=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pictures() as web:
        client = Client(
            plan, phase="run", doors=[("127.0.0.1", server.server_port)], keys=["k"], web=web, hook="", folder=tmp_path
        )
        assert client._follow(job, "/api/v1/jobs/job_1") == "succeeded"
        client.close()
    server.shutdown()
    server.server_close()
    assert [line["status"] for line in client.lines if line["what"] == "event"] == ["running", "succeeded"]
