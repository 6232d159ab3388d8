"""Prints the results of a bench, with the machine, the command and the spread of each number."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def machine() -> str:
    """Describes the machine in one line."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """The median, the minimum and the maximum."""
    return f"{statistics.median(values):.{digits}f} {unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_report(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Prints a table. Each row has a description, the measured value and the goal."""
    console = Console(width=110)
    console.print(f"{title}\n{machine()}\n$ python -m {sys.modules['__main__'].__spec__.name} {' '.join(sys.argv[1:])}".rstrip())
    table = Table("what", "measured: median (least to most)", "goal")
    for row in rows:
        table.add_row(*row)
    console.print(table)
