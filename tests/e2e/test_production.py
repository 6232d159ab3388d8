"""The main job on production's parts: two web processes, two workers, a supervisor."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys

import pytest

from testbed import ROOT, Production, environment, eventually, pictures, production
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("production")]


@pytest.fixture(scope="module")
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def web():
    with pictures() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, postgres_server, s3, fake, web):
    folder = tmp_path_factory.mktemp("production")
    settings = {"FETCH_ALLOW": web.allow, "LEASE_SECONDS": "4", "WORKER_CONCURRENCY": "8"}
    with production(folder, server=postgres_server, s3=s3, fake=fake, **settings) as started:
        yield started


@pytest.fixture
def key(cluster: Production):
    """A key of its own; at the end nothing may be left in scratch or held."""
    yield cluster.new_key()
    eventually(lambda: cluster.scratch() == [])
    assert cluster.balance()["held"] == 0


@pytest.fixture
def seen(fake):
    fake.seen.clear()
    yield fake.seen
    assert fake.faults == fake.refused == []


def said(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^Image (\d+) shows (\d+)\.$", text, re.MULTILINE)


def test_an_image_is_answered_by_either_web_process(cluster, key, seen):
    picture = base64.b64encode(numbered_picture(5)).decode()
    for name in ("web-1", "web-2"):
        client = cluster.client(name, key)
        status, _, answer = client.extract({"inputMethod": "base64", "images": [picture], "prompt": "p"})
        assert (status, answer["results"], answer["creditUsage"]) == (200, "Image 1 shows 5.", 11)


def test_three_thousand_urls_are_seen_once_charged_once_and_answered_by_the_other_web_process(cluster, key, seen, web):
    urls = [web.page(f"{n}.jpg", numbered_picture(n, format="JPEG", pad_to=30_000)) for n in range(3000)]
    charged = cluster.balance()["charged"]
    status, headers, _ = cluster.client("web-1", key).extract(
        {"inputMethod": "url", "images": urls, "prompt": "p"}, {"Prefer": "respond-async"}
    )
    assert status == 202
    other = cluster.client("web-2", key)
    job = other.follow(headers["location"])
    assert job["counts"] == {"total": 3000, "succeeded": 3000, "failed": 0}
    _, _, answer = other.send("GET", job["links"]["results"])
    assert said(answer["results"]) == [(str(n + 1), str(n)) for n in range(3000)]
    assert len(seen) == 3000
    assert set(seen.values()) == {1}
    assert cluster.balance()["charged"] == charged + 3010


def test_a_body_of_133_mb_is_one_job_and_the_front_door_stays_within_three_times_the_body(cluster, key, seen):
    images = [base64.b64encode(numbered_picture(n, format="JPEG", pad_to=33_200)).decode() for n in range(3000)]
    body = json.dumps({"inputMethod": "base64", "images": images, "prompt": "p"}).encode()
    assert len(body) > 132_000_000
    client = cluster.client("web-1", key)
    charged = cluster.balance()["charged"]
    status, headers, _ = client.extract(body, {"Prefer": "respond-async"})
    assert status == 202
    assert cluster.peak_memory("web-1") < 3 * len(body)
    assert client.follow(headers["location"])["counts"]["succeeded"] == 3000
    assert set(seen.values()) == {1}
    assert cluster.balance()["charged"] == charged + 3010


# The workers are alike: each is stopped once, and each signal is sent once.
@pytest.mark.parametrize(("name", "number"), [("worker-1", signal.SIGTERM), ("worker-2", signal.SIGKILL)])
def test_stopping_either_worker_half_way_loses_nothing(cluster, key, seen, web, fake, name, number):
    urls = [web.page(f"{n}.png", numbered_picture(n)) for n in range(400)]
    charged = cluster.balance()["charged"]
    client = cluster.client("web-2", key)
    fake.latency = 0.3
    try:
        _, headers, _ = client.extract(
            {"inputMethod": "url", "images": urls, "prompt": "p", "granularity": "perImage"}, {"Prefer": "respond-async"}
        )
        fake.wait_for(lambda: len(seen) >= 60, timeout=60)
        cluster.stop(name, number)
        job = client.follow(headers["location"])
    finally:
        fake.latency = 0.0
        cluster.start(name)
    assert job["counts"] == {"total": 400, "succeeded": 400, "failed": 0}
    _, _, answer = client.send("GET", job["links"]["results"])
    assert json.loads(answer["results"]) == [{"index": n, "result": f"picture {n}"} for n in range(400)]
    assert cluster.balance()["charged"] == charged + 410


def test_the_doctor_finds_everything_well(cluster, key):
    report = json.loads(cluster.run("doctor", "--json"))
    assert report["ok"], report


def test_production_refuses_embedded_parts_and_names_all_faults_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "web"],
        cwd=ROOT,
        env=environment(tmp_path, ENV="production"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for name in ("DATABASE_URL", "SCRATCH_URL", "REDIS_URL", "SECRET_KEY", "ENGINE"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr
