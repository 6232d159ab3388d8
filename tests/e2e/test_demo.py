"""`extract-image demo`, with either engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from testbed import ROOT
from tests.fakes.gemini import FakeGemini

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ocr"), pytest.mark.timeout(600)]


def demo(**settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "demo"],
        cwd=ROOT,
        env={**kept, **settings, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )


def test_without_a_key_the_demo_reads_every_picture_and_says_what_it_does_not_do():
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not follow prompts" in done.stdout
    assert "GEMINI_API_KEY" in done.stdout
    expected = json.loads((ROOT / "examples" / "expected.json").read_text())
    for name in expected:
        assert name in done.stdout
    assert done.stdout.count("12 of 12") == 1
    assert done.stdout.count("4 of 4") == 1
    assert "Scratch is empty." in done.stdout


def test_with_a_key_the_demo_asks_gemini():
    with FakeGemini() as fake:
        done = demo(GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "gemini-3.5-flash-lite" in done.stdout
        assert done.stdout.count("12 of 12") == 1
        assert done.stdout.count("4 of 4") == 1
        assert len(fake.calls) == 2
        assert fake.refused == []
