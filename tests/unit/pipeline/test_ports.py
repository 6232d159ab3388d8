"""Every port has a fake and a contract suite, and the table of docs/architecture.md has every port."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import ports
from tests.docs.markdown import ROOT, tables_with
from tests.fakes.deliver import FakeDeliver
from tests.fakes.engine import FakeEngine
from tests.fakes.images import FakeFetch, fake_decode
from tests.fakes.reencode import fake_preview, fake_reencode
from tests.fakes.scratch import MemoryScratch
from tests.fakes.text_reader import FakeTextReader

FOLDERS = ("api", "cli", "config", "pipeline", "storage", "workers")
ROWS = tables_with("docs/architecture.md", "port", "defined in", "fake", "embedded", "real", "suite")


def protocols() -> set[tuple[str, str]]:
    """The name and the file of every protocol in the code."""
    return {
        (node.name, str(path.relative_to(ROOT)))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    }


def ports_of_pipeline() -> dict[str, Any]:
    return {
        name: port
        for name, port in vars(ports).items()
        if getattr(port, "_is_protocol", False) and port.__module__ == ports.__name__
    }


def words(path: Path) -> set[str]:
    return set(re.findall(r"\w+", path.read_text()))


def test_every_protocol_in_the_code_stands_in_the_table_with_its_file():
    assert sorted((row["port"].strip("`"), row["defined in"].strip("`")) for row in ROWS) == sorted(protocols())


@pytest.mark.parametrize("name", sorted(ports_of_pipeline()))
def test_every_port_of_the_pipeline_has_a_contract_suite_that_names_it(name):
    suites = [path for path in (ROOT / "tests/contract").glob("test_*.py") if f"test_{name.lower()}.py" == path.name]
    assert len(suites) == 1
    assert name in words(suites[0])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["port"])
def test_a_suite_names_the_port_and_every_part_that_the_table_has_for_it(row):
    named = {name for column in ("port", "fake", "embedded", "real") for name in re.findall(r"`(\w+)`", row[column])}
    suite = words(ROOT / row["suite"].strip("`"))
    if row["port"] == "`Scratch`":
        suite |= words(ROOT / "storage/scratch/open.py")  # which takes the store that the URL names
    assert named - suite == set()


@pytest.mark.parametrize(
    ("port", "fake"),
    [
        (ports.Scratch, MemoryScratch),
        (ports.Fetch, FakeFetch),
        (ports.Decode, fake_decode),
        (ports.Reencode, fake_reencode),
        (ports.Preview, fake_preview),
        (ports.Deliver, FakeDeliver),
        (ports.Engine, FakeEngine),
        (ports.TextReader, FakeTextReader),
    ],
    ids=lambda each: each.__name__,
)
def test_a_fake_takes_the_arguments_that_its_port_has(port, fake):
    """What a port has not may only be added with a default."""
    for name, method in vars(port).items():
        if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_")):
            wanted = list(inspect.signature(method).parameters.values())[1:]
            given = fake if inspect.isfunction(fake) else getattr(fake, name)
            found = list(inspect.signature(given).parameters.values())[0 if inspect.isfunction(fake) else 1 :]
            assert [(each.name, each.kind) for each in found[: len(wanted)]] == [(each.name, each.kind) for each in wanted]
            assert all(each.default is not inspect.Parameter.empty for each in found[len(wanted) :])
