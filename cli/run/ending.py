"""Ends a run: writes the table, says what came out, and prints the command that goes on."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from itertools import islice

from rich.console import Console

from cli.client import ApiError, ClientError, Unreachable
from cli.exits import CommandFault, Exit, exit_of
from cli.run.options import Options
from cli.run.price import Price, shown
from cli.run.progress import Reporter, counted, table_of
from cli.run.state import State
from cli.run.table import ERROR, FILE, STATUS, Column, as_text, cells, columns_of
from cli.run.types import Context, Row
from cli.run.write import CsvSink, PartFile, all_columns, write_file

FIRST_ROWS = 5  #: shown after the table was written to a file
MOST_SHOWN = 50  #: rows that are shown if there is no file


class PartFiles:
    """The part files of all outputs that are lines of text. A workbook can't be read before its end, so it has none.

    Several threads may add rows.
    """

    def __init__(self, parts: Sequence[PartFile]) -> None:
        self._parts = parts
        self._lock = threading.Lock()

    def add(self, rows: Sequence[Row]) -> None:
        with self._lock:
            for part in self._parts:
                part.add(rows)

    def close(self, *, remove: bool) -> None:
        for part in self._parts:
            part.close(remove=remove)


def part_files(options: Options, state: State) -> PartFiles:
    """Part files with the rows that earlier runs have got."""
    columns = columns_of(options.schema, options.explode, evidence=options.evidence)
    try:
        parts = [PartFile(path, form, columns, options.explode) for form, path in options.outputs.items() if form != "xlsx"]
    except OSError as error:
        raise CommandFault(Exit.USAGE, f"Can't write to {error.filename}: {error.strerror}.") from None
    files = PartFiles(parts)
    try:
        for part in parts:
            part.add(row for row in state.rows() if row.state in ("done", "failed"))
    except OSError:
        files.close(remove=True)
        raise
    return files


def end(options: Options, context: Context, state: State, faults: Sequence[Exception], before: tuple[int, float]) -> Exit:
    """Writes the table and says what came out. `before`: credits and dollars of earlier runs. Raises what is a fault of ours."""
    columns = all_columns(state, columns_of(options.schema, options.explode, evidence=options.evidence), options.explode)
    rows = 0
    for form, path in options.outputs.items():
        try:
            rows = write_file(state, path, form, columns, options.explode, mode=context.mode)
        except OSError as error:
            text = f"Can't write {path}: {error.strerror or error}. What was read is kept: run the same command again."
            raise CommandFault(Exit.USAGE, text) from None
    if not options.outputs:
        rows = _to_standard_output(state, columns, options.explode)
    _say(options, context, state, before, rows)
    if options.outputs:
        lines = [line for row in islice(state.rows(), FIRST_ROWS) for line in cells(row, columns, options.explode)][:FIRST_ROWS]
        shown_lines = [[as_text(cell) for cell in line] for line in lines]
        context.reporter.show_table(_titles(columns), shown_lines, more=max(rows - len(lines), 0))
    tally = state.tally()
    for fault in faults:
        if not isinstance(fault, ClientError):
            raise fault
        context.reporter.warn("fault", f"{fault}")
    if faults:
        left = tally.total - tally.done - tally.failed
        context.reporter.warn("pending", f"{counted(left, 'image')} not read yet. Go on with: {again(context)}", images=left)
        return _exit_of(faults[0])
    return Exit.SOME_FAILED if tally.failed else Exit.ALL


def detached(context: Context, *, own: bool, cancelled: bool) -> Exit:
    """Says how the run can go on."""
    if cancelled:
        text = "The jobs were cancelled. What had been read is kept."
    elif own:
        text = "The embedded service ends now. Its jobs go on when the command runs again."
    else:
        text = "The jobs that were sent go on at the service."
    context.reporter.warn("interrupted", f"{text} Go on with: {again(context)}", cancelled=cancelled)
    return Exit.INTERRUPTED


def show_estimate(found: Price, warnings: Sequence[str], reporter: Reporter) -> None:
    """Prints the price on standard output. `warnings`: were reported before, and stand in the JSON too."""
    facts = {
        "images": found.images,
        "jobs": found.jobs,
        "credits": found.credits,
        "calls": found.calls,
        "money": round(found.money, 4),
        **({"economy": round(found.economy, 4)} if found.economy is not None else {}),
        **({"warnings": list(warnings)} if warnings else {}),
    }
    print(json.dumps(facts) if reporter.as_json else shown(found))


def again(context: Context, *more: str) -> str:
    """The command of this run, to be pasted into a shell."""
    kept = [each for each in context.command if each not in ("--restart", *more)]
    return shlex.join(["extract-image", "run", *kept, *more])


def _say(options: Options, context: Context, state: State, before: tuple[int, float], rows: int) -> None:
    tally, (credits_, money) = state.tally(), state.cost()
    spent, dollars = credits_ - before[0], money - before[1]
    where = " and ".join(str(path) for path in options.outputs.values()) or "standard output"
    failed = f" ({tally.failed:,} failed)" if tally.failed else ""
    seconds = time.monotonic() - context.started
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    cost = f", {counted(spent, 'credit')}" + (f", ${dollars:,.2f}" if dollars >= 0.005 else "")
    text = f"{counted(rows, 'row')} → {where}{failed}, {took}{cost}."
    if tally.failed > len(state.faulty()):
        text += f" Retry the failed {'one' if tally.failed == 1 else 'ones'}: {again(context, '--retry-failed')}"
    facts = {"rows": rows, "failed": tally.failed, "credits": spent, "money": round(dollars, 6), "seconds": round(seconds, 1)}
    context.reporter.say("finished", text, files=[str(path) for path in options.outputs.values()], **facts)


def _to_standard_output(state: State, columns: Sequence[Column], explode: str) -> int:
    """A table on a terminal, CSV for a pipe. Returns the number of rows."""
    if not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
        count = 0
        try:
            sink = CsvSink(sys.stdout, columns, explode)
            for row in state.rows():
                sink.write(row)
                count += len(list(cells(row, columns, explode)))
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return count
    lines, count = [], 0
    for row in state.rows():
        for line in cells(row, columns, explode):
            count += 1
            if count <= MOST_SHOWN:
                lines.append([as_text(cell) for cell in line])
    console = Console()
    console.print(table_of(_titles(columns), lines))
    if count > MOST_SHOWN:
        console.print(f"… and {count - MOST_SHOWN} more rows. Add --csv FILE to have them all.")
    return count


def _titles(columns: Sequence[Column]) -> list[str]:
    return [FILE, *(column.title for column in columns), STATUS, ERROR]


def _exit_of(fault: Exception) -> Exit:
    if isinstance(fault, ApiError):
        return exit_of(fault.status)
    return Exit.UNREACHABLE if isinstance(fault, Unreachable) else Exit.USAGE
