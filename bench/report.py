"""Prints the results of a bench, with the machine, the command and the spread of each number."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

#: The name of the environment variable that names a file. `print_report` adds the results to it, one JSON object a line.
RESULTS = "BENCH_RESULTS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """What was measured several times."""

    median: float
    least: float
    most: float
    unit: str
    digits: int  #: digits after the point that are shown

    def __str__(self) -> str:
        return f"{self.median:.{self.digits}f} {self.unit} ({self.least:.{self.digits}f} to {self.most:.{self.digits}f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A bound for the median, in the unit of the row."""

    bound: float
    at_least: bool

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}"

    def met(self, median: float) -> bool:
        return median >= self.bound if self.at_least else median <= self.bound


#: A description, what was measured, and the goal. A goal in words is for the reader, and "" is none.
Row: TypeAlias = tuple[str, Spread | str, Goal | str]


def at_most(bound: float) -> Goal:
    return Goal(bound=bound, at_least=False)


def at_least(bound: float) -> Goal:
    return Goal(bound=bound, at_least=True)


def machine() -> str:
    """Describes the machine in one line."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def fixed_work() -> float:
    """Milliseconds of CPU time that a fixed piece of Python takes. It says how fast the machine is now: a shared one is not always the same."""
    records = [{"name": f"record {number}", "values": [number, number / 7, str(number)]} for number in range(2_000)]
    taken = []
    for _ in range(7):
        began = time.process_time()
        json.loads(json.dumps(records))
        sum(len(record["name"]) for record in records for _ in range(20))
        taken.append((time.process_time() - began) * 1000)
    return statistics.median(taken)


def spread(values: Sequence[float], unit: str, digits: int = 2) -> Spread:
    return Spread(median=statistics.median(values), least=min(values), most=max(values), unit=unit, digits=digits)


def verdict(measured: Spread | str, goal: Goal | str) -> str:
    """ "met", "missed", or "" where the goal is not a number."""
    if not isinstance(measured, Spread) or not isinstance(goal, Goal):
        return ""
    return "met" if goal.met(measured.median) else "missed"


def print_report(title: str, rows: Sequence[Row]) -> None:
    """Prints a table, and adds the rows to the file that RESULTS names."""
    command = f"python -m {sys.modules['__main__'].__spec__.name} {' '.join(sys.argv[1:])}".rstrip()
    console = Console(width=110)
    work = fixed_work()
    console.print(f"{title}\n{machine()}; a fixed piece of Python takes {work:.1f} ms\n$ {command}")
    table = Table("what", "measured: median (least to most)", "goal")
    for what, measured, goal in rows:
        missed = ", missed" if verdict(measured, goal) == "missed" else ""
        table.add_row(what, str(measured), f"{goal}{missed}")
    console.print(table)
    if path := os.environ.get(RESULTS):
        with Path(path).open("a", encoding="utf-8") as file:
            report = {
                "title": title,
                "command": command,
                "fixed_work_ms": round(work, 2),
                "rows": [_as_json(row) for row in rows],
            }
            print(json.dumps(report), file=file)


def _as_json(row: Row) -> dict[str, object]:
    what, measured, goal = row
    return {
        "what": what,
        "text": str(measured),
        "goal": str(goal),
        "verdict": verdict(measured, goal),
        **(asdict(measured) if isinstance(measured, Spread) else {}),
        **({"bound": goal.bound, "at_least": goal.at_least} if isinstance(goal, Goal) else {}),
    }
