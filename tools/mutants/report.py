"""Writes docs/reference/mutants.md from the outcomes of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.mutants.table import ROOT, Mutant, mutants

PAGE = ROOT / "docs" / "reference" / "mutants.md"
#: The name of the change in a row of the page, and the outcome of one that was not noticed.
_NAME = re.compile(r"\|.*\| `([\w-]+)` in `")
_OUTCOME = re.compile(r"\| \*\*([a-z ]+)\*\*")


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
    said = f"`{_name(result.by)}`" if result.outcome is Outcome.NOTICED else f"**{result.outcome}** {mutant.equivalent}".rstrip()
    return f"| {mutant.safeguard} | `{mutant.name}` in `{mutant.file}` | {said} | {result.seconds:.0f} s |"


def _name(test: str) -> str:
    """A test's name without its file. Its parameters may have any characters."""
    place, bracket, parameters = test.partition("[")
    return place.rpartition("::")[2] + bracket + parameters


def page(results: Sequence[Result], before: str = "", gone: Collection[str] = ()) -> str:
    """The page's text. `before`: an earlier page, which gives the rows of changes that have no result, except for those that are `gone`."""
    rows = {result.mutant.name: _row(result) for result in results}
    of_before = {found[1]: line for line in before.splitlines() if (found := _NAME.match(line))}
    names = dict.fromkeys(name for name in (*of_before, *rows) if name not in gone)
    lines = [rows.get(name) or of_before[name] for name in names]
    counts = Counter(found[1] if (found := _OUTCOME.search(line)) else Outcome.NOTICED for line in lines)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return "\n".join(
        (
            "# Mutants",
            "",
            "`make mutants` takes safeguards out of the code, one at a time, and runs the tests that should notice. It wrote this page.",
            "The changes are kept in `tools/mutants/safeguards.toml`: a piece of a file's text, and what replaces it. A later run of single",
            "changes replaces their rows.",
            "",
            f"{len(lines)} changes: {total}.",
            "",
            "| safeguard | change | noticed by | time |",
            "|---|---|---|---|",
            *lines,
            "",
        )
    )


def write(results: Sequence[Result], path: Path = PAGE, *, whole: bool) -> None:
    """Writes the page. `whole`: the results are of all changes; else they replace only their own rows."""
    before = "" if whole or not path.exists() else path.read_text(encoding="utf-8")
    named = {found[1] for line in before.splitlines() if (found := _NAME.match(line))}
    gone = named - {mutant.name for mutant in mutants()}
    path.write_text(page(results, before, gone), encoding="utf-8")
