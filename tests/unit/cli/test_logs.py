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

LIBRARIES = """
import logging
from cli.logs import configure_logs

configure_logs(json={json})
for library in ("httpx2", "httpcore2", "google_genai", "botocore", "urllib3"):
    logging.getLogger(library).info("HTTP Request: GET https://s3.example/scratch/1?X-Amz-Signature=abc")
    logging.getLogger(library + ".connection").warning("pool is full")
"""


@pytest.mark.parametrize("json", [True, False])
def test_the_lines_of_libraries_that_may_show_a_signed_url_are_not_logged_and_their_warnings_are(json):
    program = [sys.executable, "-c", LIBRARIES.format(json=json)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert "Signature" not in done.stderr
    assert done.stderr.count("pool is full") == 5


@pytest.mark.parametrize("json", [True, False])
def test_a_logged_exception_says_where_it_happened_and_not_what_the_variables_held(json):
    program = PROGRAM.format(json=json).replace('work("a-very', 'work("a" "-very')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "went wrong" in done.stderr
    assert "in work" in done.stderr or '"name": "work"' in done.stderr
    assert "a-very-secret-prompt" not in done.stderr
