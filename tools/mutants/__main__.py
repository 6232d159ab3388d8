"""Takes safeguards out of the code, one at a time, and says which tests notice: `python -m tools.mutants [NAME ...]`.

Each change is made in a copy of the tree, so an interrupted run leaves nothing behind. A run writes
docs/reference/mutants.md. The exit code is 1 if a change is stale, broken, or survived without being explained.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from tools.mutants.report import Outcome, Result, write
from tools.mutants.table import ROOT, Mutant, mutants

PROCESSES = 2
SECONDS = 240  #: of one change; a change that makes a test hang is noticed too
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", re.MULTILINE)
_LISTED = (shutil.which("git") or "git", "ls-files", "-z", "-co", "--exclude-standard")
_TESTS_FAILED = 1  # pytest's exit code


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of the files that git knows, as they are now."""
    listed = subprocess.run(_LISTED, cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(folder) / name)
        yield Path(folder)


def run_tests(tree: Path, tests: Sequence[str], *, first_only: bool = True) -> tuple[int | None, str]:
    """Pytest's exit code and output. The code is None if it took too long."""
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *(("-x",) if first_only else ()),
        "-p",
        "no:cacheprovider",
        "--no-header",
        *tests,
    )
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
    )
    try:
        said, _ = process.communicate(timeout=SECONDS if first_only else 4 * SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""
    return process.returncode, said


def judged(mutant: Mutant, code: int | None, said: str, seconds: float) -> Result:
    """What pytest's exit code and output say of a change."""
    failed = _FAILED.search(said)
    last = ([line for line in said.splitlines() if line.strip()] or [""])[-1]
    if code is None:
        return Result(mutant=mutant, outcome=Outcome.NOTICED, by=f"a test hung: {mutant.tests[0]}", seconds=seconds)
    if code == _TESTS_FAILED and failed:
        return Result(mutant=mutant, outcome=Outcome.NOTICED, by=failed[1], seconds=seconds)
    outcome = Outcome.SURVIVED if code == 0 else Outcome.BROKEN
    return Result(mutant=mutant, outcome=outcome, by=last, seconds=seconds)


def tried(mutant: Mutant, tree: Path) -> Result:
    """Makes the change in the tree, runs its tests, and takes the change back."""
    text = mutant.mutated(tree)
    if text is None:
        return Result(mutant=mutant, outcome=Outcome.STALE, by="", seconds=0.0)
    file, began = tree / mutant.file, time.monotonic()
    before = file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    try:
        code, said = run_tests(tree, mutant.tests)
    finally:
        file.write_text(before, encoding="utf-8")
    return judged(mutant, code, said, time.monotonic() - began)


def unless_failing_anyway(results: Sequence[Result], tree: Path) -> list[Result]:
    """Runs the tests that noticed once more without any change. One that fails then has noticed nothing."""
    names = sorted({result.by for result in results if result.outcome is Outcome.NOTICED and "::" in result.by})
    _, said = run_tests(tree, names, first_only=False) if names else (0, "")
    failing = set(_FAILED.findall(said))
    return [replace(result, outcome=Outcome.BROKEN) if result.by in failing else result for result in results]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help="only these changes; then only their rows are written")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no further change after this time")
    options = parser.parse_args()
    wanted, ends = options.names, time.monotonic() + options.minutes * 60
    chosen = [mutant for mutant in mutants() if not wanted or mutant.name in wanted]
    trees: SimpleQueue[Path] = SimpleQueue()
    with copied_tree() as one, copied_tree() as two, ThreadPoolExecutor(PROCESSES) as pool:
        for tree in (one, two):
            trees.put(tree)

        def attempt(mutant: Mutant) -> Result:
            if time.monotonic() > ends:
                return Result(mutant=mutant, outcome=Outcome.UNTRIED, by="", seconds=0.0)
            tree = trees.get()
            try:
                result = tried(mutant, tree)
            finally:
                trees.put(tree)
            print(f"{result.outcome:9} {result.seconds:4.0f} s  {mutant.name}  {result.by}", flush=True)
            return result

        results = unless_failing_anyway(list(pool.map(attempt, chosen)), one)
    write(results, whole=not wanted)
    unexplained = [
        each
        for each in results
        if each.outcome is not Outcome.NOTICED and not (each.outcome is Outcome.SURVIVED and each.mutant.equivalent)
    ]
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
