"""Writes docs/reference/mutants.md from the outcomes of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.mutants.table import ROOT, Mutant

PAGE = ROOT / "docs" / "reference" / "mutants.md"


class Outcome(StrEnum):
    """What the tests said of a change."""

    NOTICED = "noticed"
    SURVIVED = "survived"
    STALE = "stale"  #: the text to replace is not in the file any more
    BROKEN = "broken"  #: the tests could not run, or fail without the change too
    UNTRIED = "not tried"  #: the run's time was over


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of one change."""

    mutant: Mutant
    outcome: Outcome
    by: str  #: the test that failed first, or what pytest said last
    seconds: float


def _row(result: Result) -> str:
    mutant = result.mutant
    said = (
        f"`{result.by.rpartition('::')[2]}`"
        if result.outcome is Outcome.NOTICED
        else f"**{result.outcome}** {mutant.equivalent}".rstrip()
    )
    return f"| {mutant.safeguard} | `{mutant.name}` in `{mutant.file}` | {said} | {result.seconds:.0f} s |"


def page(results: Sequence[Result]) -> str:
    """The page's text."""
    counts = Counter(result.outcome for result in results)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return "\n".join(
        (
            "# Mutants",
            "",
            "`make mutants` takes safeguards out of the code, one at a time, and runs the tests that should notice. It wrote this page.",
            "The changes are kept in `tools/mutants/safeguards.toml`: a piece of a file's text, and what replaces it.",
            "",
            f"{len(results)} changes: {total}.",
            "",
            "| safeguard | change | noticed by | time |",
            "|---|---|---|---|",
            *map(_row, results),
            "",
        )
    )


def write(results: Sequence[Result], path: Path = PAGE) -> None:
    path.write_text(page(results), encoding="utf-8")
