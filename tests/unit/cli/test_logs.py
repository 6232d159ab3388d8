"""What a log line may hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from cli.logs import configure_logs

configure_logs(json={json})

def work(prompt):
    raise ValueError("went wrong")

try:
    work("a-very-secret-prompt")
except ValueError:
    structlog.get_logger("x").exception("step_failed")
"""


@pytest.mark.parametrize("json", [True, False])
def test_a_logged_exception_says_where_it_happened_and_not_what_the_variables_held(json):
    program = PROGRAM.format(json=json).replace('work("a-very', 'work("a" "-very')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "went wrong" in done.stderr
    assert "in work" in done.stderr or '"name": "work"' in done.stderr
    assert "a-very-secret-prompt" not in done.stderr
