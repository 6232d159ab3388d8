"""Says what a run does, on standard error: a bar on a terminal, plain lines without one, or one JSON object a line."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LONGEST_CELL = 120  #: characters of a cell that a terminal shows
STEP = 10  #: percent between two plain lines
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
MOST_FAILURES = 20  #: named one by one without a terminal; more are only counted, because the table has them all


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far the run is."""

    total: int
    done: int
    failed: int
    credits: int
    waiting: str = ""  #: what the service waits for


class Reporter:
    """Takes events from any thread. `as_json`: one object a line; `quiet`: only what needs the user."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, out: IO[str] | None = None) -> None:
        self._out = out or sys.stderr
        self.as_json, self._quiet = as_json, quiet
        self._lock = threading.RLock()
        self.console = Console(file=self._out, highlight=False, soft_wrap=True)
        self.on_terminal = self.console.is_terminal and not as_json and not quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._percent = 0
        self._begun = 0.0
        self._before = 0  # images that were done when the bar began
        self._failures = 0
        self._waiting = ""
        self._last: Standing | None = None

    def say(self, event: str, text: str, **facts: Any) -> None:
        """Something that happened. `text` is for people."""
        self._tell(event, text, facts)

    def note(self, event: str, **facts: Any) -> None:
        """Something that only programs want to know: it is told with `as_json` alone."""
        if self.as_json:
            with self._lock:
                self._write_json(event, facts)

    def warn(self, event: str, text: str, **facts: Any) -> None:
        """Something that the user must see, also with `quiet`."""
        self._tell(event, text, facts, style="yellow", always=True)

    def failure(self, name: str, code: str, message: str) -> None:
        """An image that failed."""
        with self._lock:
            self._failures += 1
            if self._failures > MOST_FAILURES and not self.on_terminal and not self.as_json:
                if self._failures == MOST_FAILURES + 1:
                    self._tell("failure", "✗ … further failures are in the table", {})
                return
            self._tell("failure", f"✗ {name}: {message or code}", {"file": name, "code": code, "message": message}, style="red")

    def standing(self, now: Standing) -> None:
        """How far the run is. It may be called often."""
        with self._lock:
            changed, self._last = now != self._last, now
            if self.as_json:
                if changed:
                    self._write_json("progress", vars_of(now))
                return
            if self._quiet:
                return
            if now.waiting != self._waiting:
                self._waiting = now.waiting
                if now.waiting and not self.on_terminal:
                    self._print(f"waiting: {now.waiting}")
            if self.on_terminal:
                self._show_bar(now)
            else:
                self._show_line(now)

    def end_bar(self) -> None:
        with self._lock:
            if self._bar:
                self._bar.stop()
                self._bar = None

    def show_table(self, titles: Sequence[str], lines: Sequence[Sequence[str]], *, more: int) -> None:
        """The first rows, on a terminal only."""
        if self.on_terminal:
            self.console.print(table_of(titles, lines))
            if more:
                self.console.print(f"… and {more} more rows", style="dim")

    def _show_bar(self, now: Standing) -> None:
        if self._bar is None or self._task is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self._task = self._bar.add_task("Reading", total=now.total, completed=now.done + now.failed, facts="")
            self._bar.start()
            self._begun, self._before = time.monotonic(), now.done + now.failed
        rate = (now.done + now.failed - self._before) / max(time.monotonic() - self._begun, 0.001)
        facts = f"[red]{now.failed} failed[/red] " if now.failed else ""
        facts += f"{rate:.1f}/s {now.credits} credits"
        text = f"[yellow]waiting: {escape(now.waiting)}[/yellow]" if now.waiting else "Reading"
        self._bar.update(self._task, completed=now.done + now.failed, total=now.total, facts=facts, description=text)

    def _show_line(self, now: Standing) -> None:
        percent = 100 * (now.done + now.failed) // max(now.total, 1)
        if percent // STEP > self._percent // STEP:
            self._percent = percent
            failed = f", {now.failed} failed" if now.failed else ""
            self._print(f"{percent} %: {now.done + now.failed} of {now.total}{failed}, {now.credits} credits")

    def _tell(self, event: str, text: str, facts: dict[str, Any], *, style: str = "", always: bool = False) -> None:
        with self._lock:
            if self.as_json:
                self._write_json(event, {"text": text, **facts})
            elif always or not self._quiet:
                self._print(text, style)

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(printable(text), style=style or None, markup=False)

    def _write_json(self, event: str, facts: dict[str, Any]) -> None:
        self._out.write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")
        self._out.flush()


def vars_of(now: Standing) -> dict[str, Any]:
    return {
        "total": now.total,
        "done": now.done,
        "failed": now.failed,
        "credits": now.credits,
        **({"waiting": now.waiting} if now.waiting else {}),
    }


def table_of(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal. Long cells are cut, and lines within a cell are joined."""
    table = Table(*titles)
    for line in lines:
        joined = [printable(re.sub(r"\s*\n\s*", " / ", cell.strip())) for cell in line]
        table.add_row(*(escape(cell if len(cell) <= LONGEST_CELL else f"{cell[: LONGEST_CELL - 1]}…") for cell in joined))
    return table


def printable(text: str) -> str:
    """The text with escapes for characters that move a terminal's cursor or command it. Names of files may have them."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(number: int, what: str) -> str:
    """`1 image`, `200 images`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """A size for people."""
    if size < 100_000:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1e6:.1f} MB" if size < 10_000_000 else f"{size / 1e6:,.0f} MB"
