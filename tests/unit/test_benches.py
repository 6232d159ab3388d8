"""The benches go on working as the code changes: each can be imported and says what it measures."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from bench.__main__ import SUITE, merged

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if path.stem not in {"__init__", "__main__"})
#: These measure nothing: the others use them.
HELPERS = {
    *(
        "chart",
        "evidence_pages",
        "evidence_sheet",
        "evidence_words",
        "report",
        "web",
        "without",
        "counted",
        "profile",
        "sides",
        "sizes",
    ),
    *("pictures_compare", "pictures_decoders", "pictures_explained", "pictures_report", "pictures_sources"),
}
BENCHES = sorted(set(MODULES) - HELPERS)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_bench_can_be_imported(name):
    importlib.import_module(f"bench.{name}")


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_says_what_it_measures_when_asked_for_help(name, monkeypatch, capsys):
    bench = importlib.import_module(f"bench.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert " ".join(bench.__doc__.split())[:40] in told


@pytest.mark.parametrize("name", MODULES)
def test_a_bench_takes_from_the_tests_only_what_testbed_offers(name):
    tree = ast.parse((ROOT / "bench" / f"{name}.py").read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert [module for module in sorted(imported) if module.split(".")[0] == "tests" or module.startswith("testbed.")] == []


def test_contributing_lists_every_bench():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"python -m bench\.(\w+)", text)) == set(BENCHES)


def test_a_run_of_single_benches_replaces_their_reports_and_leaves_the_others():
    first, second, third = (f"python -m {bench.command}" for bench in SUITE[:3])
    before = {
        "machine": "m",
        "seconds": 100,
        "reports": [{"command": third, "rows": [1]}, {"command": first, "rows": [1]}],
        "failed": [second.removeprefix("python -m "), "bench.gone"],
    }
    now = {
        "machine": "m",
        "seconds": 10,
        "reports": [{"command": second, "rows": [2]}, {"command": first, "rows": [2]}],
        "failed": [],
    }
    after = merged(before, now)
    assert [(report["command"], report["rows"]) for report in after["reports"]] == [(first, [2]), (second, [2]), (third, [1])]
    assert (after["failed"], after["seconds"]) == (["bench.gone"], 110)
