"""Processes that run for long hold no packages that they don't use."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


#: What the command of each role calls last.
RUNS = {"web": "api.server.run_web", "worker": "workers.app.run_worker", "supervisor": "workers.supervisor.Supervisor.run"}


@pytest.mark.parametrize("role", RUNS)
def test_a_process_that_runs_for_long_holds_neither_rich_nor_opentelemetry(role, tmp_path):
    """The command itself is run, and shows what is imported when it has begun."""
    module, _, name = RUNS[role].removesuffix(".run").rpartition(".") if role == "supervisor" else RUNS[role].rpartition(".")
    code = f"""
import importlib, os, sys
import cli.main
from cli import lean
real = lean.import_lean
def import_lean():
    print("imported before:", "structlog" in sys.modules, "redis" in sys.modules)
    real()
    module = importlib.import_module("{module}")
    def shown(*_, **__):
        print("at work:", "rich" in sys.modules, "opentelemetry" in sys.modules, flush=True)
        os._exit(0)
    {"module.Supervisor.run = shown" if role == "supervisor" else f"module.{name} = shown"}
cli.main.import_lean = import_lean
cli.main.main(["{role}"])
"""
    environ = {"PATH": "", "DATA_DIR": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:9/0"}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == ["imported before: False False", "at work: False False"], ended.stderr


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
