"""`python -m tests.torture.checker RECORD` checks the record of a run again."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.torture.checker import check
from tests.torture.checker.record import load

for found in check(load(Path(sys.argv[1]))):
    print("ok  " if not found.faults else "FAIL", found.promise, "|", found.seen, *found.faults[:20], sep="\n       ")  # noqa: T201
