"""What is stopped by a deploy: within the time that orchestrators give, with code 0, and what it had goes on elsewhere at once."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
from threading import Event

import pytest

from testbed import ROOT, Production, environment, eventually, production
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import held

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("production")]

STOPPED_WITHIN = 25  # seconds: docker's and Kubernetes' 30, less a margin


@pytest.fixture
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture
def cluster(tmp_path, postgres_server, s3, fake):
    # No lease runs out here: what goes on has been handed back.
    settings = {"LEASE_SECONDS": "600", "WORKER_CONCURRENCY": "4", "SYNC_WAIT": "60"}
    names = ("web-1", "worker-1", "supervisor")
    with production(tmp_path, server=postgres_server, s3=s3, fake=fake, names=names, **settings) as started:
        yield started
        eventually(lambda: started.scratch() == [])
        assert started.balance()["held"] == 0


def body(number: int) -> dict[str, object]:
    return {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(number)).decode()], "prompt": "p"}


def stopped(cluster: Production, name: str) -> int:
    process: subprocess.Popen[bytes] = cluster.processes.pop(name)
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=STOPPED_WITHIN)


def test_a_worker_with_a_call_that_does_not_end_is_gone_in_time_and_another_goes_on_at_once(cluster, fake):
    client = cluster.client("web-1", cluster.new_key())
    never = Event()
    fake.script = lambda call: held(never) if call.order == 0 else None
    _, headers, _ = client.extract(body(5), {"Prefer": "respond-async"})
    assert fake.wait_for(lambda: len(fake.calls) == 1, timeout=60)
    assert stopped(cluster, "worker-1") == 0
    cluster.start("worker-2")
    job = client.follow(headers["location"])
    never.set()
    assert (job["status"], job["usage"]["credits"]) == ("succeeded", 11)
    assert "step_handed_back" in cluster.log("worker-1")


def test_a_worker_ends_what_can_be_ended_and_takes_nothing_new(cluster, fake):
    client = cluster.client("web-1", cluster.new_key())
    gate = Event()
    fake.script = lambda call: held(gate) if call.order == 0 else None
    _, headers, _ = client.extract(body(5), {"Prefer": "respond-async"})
    assert fake.wait_for(lambda: len(fake.calls) == 1, timeout=60)
    cluster.processes["worker-1"].send_signal(signal.SIGTERM)
    eventually(lambda: "draining" in cluster.log("worker-1"))
    _, later, _ = client.extract(body(6), {"Prefer": "respond-async"})
    gate.set()
    assert cluster.processes.pop("worker-1").wait(timeout=STOPPED_WITHIN) == 0
    assert len(fake.calls) == 1, "the answer was waited for, and nothing else was asked"
    cluster.start("worker-2")
    assert [client.follow(at["location"])["status"] for at in (headers, later)] == ["succeeded"] * 2
    assert len(fake.calls) == 2


@pytest.mark.parametrize("role", ["web", "worker", "supervisor"])
def test_a_process_that_is_stopped_while_it_starts_ends_well(tmp_path, role):
    """Whatever it needs is away: it is still starting, or waiting."""
    away = {
        "DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/none",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "SCRATCH_URL": f"file:{tmp_path}/scratch",
        "PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; print('started', flush=True); main()", role],
        cwd=ROOT,
        env=environment(tmp_path / "data", **away),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == b"started\n"
    with process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STOPPED_WITHIN) in {0, -signal.SIGTERM}
