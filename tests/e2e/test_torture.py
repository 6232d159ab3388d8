"""The short form of `make torture`: every promise holds under the faults of each family, and the checker sees it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from testbed import ROOT

#: Its promises are seconds, and its processes are ten: it has the machine for itself (see the Makefile).
pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(420)]
SEED = 1


@pytest.mark.parametrize("parts", ["postgres", "sqlite"])
def test_every_promise_holds_under_faults(parts):
    command = [sys.executable, "-m", "tests.torture", "--short", "--json", "--seed", str(SEED), "--parts", parts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr[-4000:]
    outcome = json.loads(done.stdout)
    assert {check["promise"]: check["faults"] for check in outcome["checks"] if check["faults"]} == {}
    assert outcome["happened"]["steps that were claimed again"] > 0
    assert done.returncode == 0
