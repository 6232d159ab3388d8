"""The short form of `make hosts`: every promise holds while whole hosts are cut off, lost and replaced."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from testbed import ROOT
from tests.hosts.host import why_not

WHY_NOT = why_not()
#: Its promises are seconds, and its processes are twelve, so it is run by hand until it was seen to hold on machines of all speeds.
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(420), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
SEED = 1


def test_nothing_rests_on_one_host():
    command = [sys.executable, "-m", "tests.hosts", "--short", "--json", "--seed", str(SEED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr[-4000:]
    outcome = json.loads(done.stdout)
    assert {check["promise"]: check["faults"] for check in outcome["checks"] if check["faults"]} == {}
    assert outcome["happened"]["steps whose lease ran out"] > 0
    assert outcome["happened"]["clocks found to differ from that of S3"] > 0
    assert done.returncode == 0
