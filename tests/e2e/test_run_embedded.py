"""`extract-image run` without a service: it runs one for its own time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest

from testbed import ROOT
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serve")]


def started(folder, *arguments, **settings):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    xdg = {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "run", "p", "--csv", "o.csv", *arguments],
        cwd=folder,
        env={**kept, **xdg, **settings, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def here(tmp_path):
    (tmp_path / "p").mkdir()
    for number in range(4):
        (tmp_path / "p" / f"{number}.png").write_bytes(numbered_picture(number))
    return tmp_path


def test_after_a_kill_the_next_run_goes_on_with_the_jobs_and_leaves_no_process_and_no_data(here):
    with FakeGemini(latency=1) as fake:
        settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url}
        with started(here, "--json", **settings) as first:
            assert any(json.loads(line)["event"] == "sent" for line in first.stderr)
            children = psutil.Process(first.pid).children(recursive=True)
            first.kill()
        with started(here, **settings) as second:
            said = second.stderr.read()
        assert second.returncode == 0, said
        assert "No service is configured, so one is started here" in said
        assert "4 rows → o.csv" in said
        assert [line.split(",")[1] for line in (here / "o.csv").read_text().splitlines()[1:]] == [
            f"picture {n}" for n in range(4)
        ]
        psutil.wait_procs(children, timeout=60)
        assert [process for process in children if process.is_running()] == []
        assert list((here / "state" / "extract-image" / "runs").iterdir()) == []


def test_a_schema_without_a_model_ends_before_a_service_is_started(here):
    with started(here, "--schema", "shop, total number") as run:
        said = run.stderr.read()
    assert run.returncode == 2
    assert "Set GEMINI_API_KEY" in said
    assert not (here / "state").exists()
