"""An engine is one module and one line in a table: everything else asks the table."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from config.engines import EMBEDDED_ENGINE, ENGINES, EngineName
from config.settings import Settings

ROOT = Path(__file__).parents[3]
FOLDERS = ("api", "cli", "config", "pipeline", "storage", "workers")
#: The table, and the modules of the engines themselves.
KNOW_NAMES = ("config/engines.py", "pipeline/engines/")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(KNOW_NAMES):
                yield name, ast.parse(path.read_text())


def names_of_engines(tree: ast.AST) -> list[int]:
    """The lines with a text that is the name of an engine, whatever is done with it, or that begins the path of a module of one."""
    texts = ((node.lineno, node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [line for line, text in texts if text in ENGINES or (isinstance(text, str) and text.startswith("pipeline.engines."))]


def test_no_name_of_an_engine_stands_outside_of_the_table_and_the_engines():
    found = {name: lines for name, tree in modules() if (lines := names_of_engines(tree))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        'settings.engine == "ocr"',
        'settings.engine in {"gemini", "openai"}',
        'match settings.engine:\n    case "openai":\n        pass',
        '{"gemini": 1}[settings.engine]',
        'import_module(f"pipeline.engines.{settings.engine}")',
    ],
)
def test_a_comparison_with_the_name_of_an_engine_would_be_found(source):
    assert names_of_engines(ast.parse(source))


def test_the_table_has_each_engine_that_the_settings_allow():
    assert set(ENGINES) == set(get_args(EngineName))
    assert set(get_args(Settings.model_fields["engine"].annotation)) == {"", *ENGINES}


@pytest.mark.parametrize("kind", ENGINES.values(), ids=lambda kind: kind.name)
def test_the_settings_that_an_engine_s_line_names_exist(kind):
    named = {*filter(None, (kind.api_key, kind.base_url, kind.chosen_by)), *kind.needs}
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_engine_that_works_with_nothing_set_needs_nothing():
    assert not EMBEDDED_ENGINE.needs


def test_no_engine_is_imported_with_the_table():
    """Each weighs 50 MB and more: who asks for `--help` does without."""
    program = "import sys, config.chosen_engine; print(*(name for name in sys.modules if name.startswith('pipeline.engines')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
