"""The list of keys, as a person reads it."""

from __future__ import annotations

import json
import subprocess
import sys

from testbed import ROOT, environment


def run(folder, *words: str) -> str:
    """What a command prints in a process of its own, with a narrow terminal."""
    command = [sys.executable, "-m", "cli.main", "keys", *words]
    env = {**environment(folder), "COLUMNS": "20"}
    return subprocess.run(command, cwd=ROOT, env=env, timeout=60, check=True, capture_output=True, text=True).stdout


def test_the_list_of_keys_never_cuts_an_id(tmp_path):
    made = json.loads(run(tmp_path, "create", "the warehouse in Kyoto", "--credits", "1000000", "--json"))
    header, row = run(tmp_path, "list").splitlines()
    assert header.split() == ["id", "name", "account", "available", "held", "charged", "state"]
    key = row.split("  ")[0]
    assert key in made["key"]
    assert row.startswith(f"{key}  the warehouse in Kyoto  {made['account']}  1000000 ")
    assert row.endswith("  live")
