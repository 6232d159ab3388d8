"""Runs the commands of a page of the documents, as a reader would paste them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from testbed import ROOT, environment

_BLOCK = re.compile(r"^```sh (?:production|sqlite)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: str) -> dict[str, list[str]]:
    """The blocks of the page that need a real service, by the heading above them."""
    parts = re.split(r"^## (.+)$", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {heading: _BLOCK.findall(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {heading: blocks for heading, blocks in found.items() if blocks}


def paste(block: str, folder: Path, settings: Mapping[str, str]) -> str:
    """What the commands print, run in `folder`, which has the project's scripts. Raises AssertionError if one of them fails."""
    if not (folder / "deploy").exists():
        (folder / "deploy").symlink_to(ROOT / "deploy")
    given = {**environment(folder / "var"), **settings}
    given["PATH"] = f"{Path(sys.executable).parent}:{given['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", block], cwd=folder, env=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout
