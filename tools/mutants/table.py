"""Reads the kept list of changes, `tools/mutants/safeguards.toml`, and makes a change in a copy of the tree."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).parent / "safeguards.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A change that takes one safeguard out of the code."""

    name: str
    safeguard: str  #: what the code promises without the change, in a sentence
    file: str  #: path from the root
    old: str  #: text that occurs once in the file
    new: str  #: what replaces it
    tests: tuple[str, ...]  #: files, or tests of files, that should notice
    equivalent: str = ""  #: why no test can notice; empty if one must

    def mutated(self, root: Path = ROOT) -> str | None:
        """The file's text with the change. None if the change is stale, because the file does not have `old` exactly once."""
        text = (root / self.file).read_text(encoding="utf-8") if (root / self.file).is_file() else ""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


def mutants() -> list[Mutant]:
    """The kept list, in its order."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Mutant(name=name, **{**row, "tests": tuple(row["tests"])}) for name, row in rows.items()]
