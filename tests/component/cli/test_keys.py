"""The list of keys, as a person reads it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cli.main import main


@pytest.mark.parametrize("columns", ["20", "80", "400"])
def test_the_list_of_keys_never_cuts_an_id(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", columns)
    runner = CliRunner()
    made = runner.invoke(main, ["keys", "create", "the warehouse in Kyoto", "--credits", "1000000", "--json"])
    [key] = json.loads(runner.invoke(main, ["keys", "list", "--json"]).output)
    header, row = runner.invoke(main, ["keys", "list"]).output.splitlines()
    assert header.split() == ["id", "name", "account", "available", "held", "charged", "state"]
    assert row.split("  ")[0] == key["id"]
    assert json.loads(made.output)["account"] in row.split()
    assert row.startswith(f"{key['id']}  the warehouse in Kyoto  {key['account']}  1000000 ")
    assert row.endswith("live")
