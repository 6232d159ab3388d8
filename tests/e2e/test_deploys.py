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


@pytest.fixture(scope="module")
def model():
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def started(tmp_path_factory, postgres_server, s3, model):
    # No lease runs out here: what goes on has been handed back.
    settings = {"LEASE_SECONDS": "600", "WORKER_CONCURRENCY": "4", "SYNC_WAIT": "60"}
    folder = tmp_path_factory.mktemp("deploys")
    with production(folder, server=postgres_server, s3=s3, fake=model, names=("web-1", "supervisor"), **settings) as running:
        yield running


@pytest.fixture
def fake(model):
    """The model, which has not been asked anything. It answers at once until the test gives it another script."""
    model.calls.clear()
    model.script = None
    return model


@pytest.fixture
def cluster(started):
    """The cluster without a worker. Each test starts workers of its own names, because the logs are kept by name.

    At the end nothing is in scratch or held.
    """
    yield started
    eventually(lambda: started.scratch() == [])
    assert started.balance()["held"] == 0
    for name in [name for name in started.processes if name.startswith("worker")]:
        started.stop(name)


def body(number: int) -> dict[str, object]:
    return {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(number)).decode()], "prompt": "p"}


def stopped(cluster: Production, name: str) -> int:
    process: subprocess.Popen[bytes] = cluster.processes.pop(name)
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=STOPPED_WITHIN)


def test_a_worker_with_a_call_that_does_not_end_is_gone_in_time_and_another_goes_on_at_once(cluster, fake):
    cluster.start("worker-1")
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
    cluster.start("worker-3")
    client = cluster.client("web-1", cluster.new_key())
    gate = Event()
    fake.script = lambda call: held(gate) if call.order == 0 else None
    _, headers, _ = client.extract(body(5), {"Prefer": "respond-async"})
    assert fake.wait_for(lambda: len(fake.calls) == 1, timeout=60)
    cluster.processes["worker-3"].send_signal(signal.SIGTERM)
    eventually(lambda: "draining" in cluster.log("worker-3"))
    _, later, _ = client.extract(body(6), {"Prefer": "respond-async"})
    gate.set()
    assert cluster.processes.pop("worker-3").wait(timeout=STOPPED_WITHIN) == 0
    assert len(fake.calls) == 1, "the answer was waited for, and nothing else was asked"
    cluster.start("worker-4")
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
