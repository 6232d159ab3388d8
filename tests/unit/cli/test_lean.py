"""Processes that run for long hold no packages that they don't use."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("role", ["api.server", "workers.app", "workers.supervisor"])
def test_a_process_that_runs_for_long_holds_neither_rich_nor_opentelemetry(role):
    code = f"from cli.lean import import_lean; import_lean(); import sys, {role}; print('rich' in sys.modules, 'opentelemetry' in sys.modules)"
    assert said(code).split() == ["False", "False"]


def test_what_was_left_out_can_be_imported_afterwards():
    code = "from cli.lean import import_lean; import_lean(); import rich, opentelemetry; print(rich.__name__, opentelemetry.__name__)"
    assert said(code).split() == ["rich", "opentelemetry"]


def test_a_process_that_uses_them_already_keeps_them():
    code = "import rich, sys; from cli.lean import import_lean; import_lean(); print(sys.modules['rich'].__name__, 'structlog' in sys.modules)"
    assert said(code).split() == ["rich", "False"]


@pytest.mark.parametrize("json", [True, False])
def test_a_traceback_is_logged_as_ever(json):
    code = f"""
from cli.lean import import_lean
import_lean()
import structlog
from cli.logs import configure_logs
configure_logs(json={json})
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("x").exception("it_failed")
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "it_failed" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
