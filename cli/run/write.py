"""Writes the table: rows into a part file as they come, and at the end the whole table in order, replaced at once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cli.run.options import Form
from cli.run.state import State
from cli.run.table import ERROR, FILE, STATUS, Column, as_object, as_text, cells, more_columns
from cli.run.types import Row

BOM = "\ufeff"  #: without it, Excel reads the text in its own code page
#: Spreadsheets read a cell with one of these prefixes as a formula. In East Asian locales, so do the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_SPECIAL = re.compile(r'[",\r\n]')


class CsvSink:
    """RFC 4180. A text that a spreadsheet would read as a formula gets an apostrophe before it, as in the service's own CSV."""

    def __init__(self, out: IO[str], columns: Sequence[Column], explode: str = "") -> None:
        self._out, self._columns, self._explode = out, columns, explode
        out.write(csv_line([FILE, *(column.title for column in columns), STATUS, ERROR]))

    def write(self, row: Row) -> None:
        for line in cells(row, self._columns, self._explode):
            self._out.write(csv_line(line))


class JsonlSink:
    """One JSON object a line."""

    def __init__(self, out: IO[str], columns: Sequence[Column], explode: str = "") -> None:
        self._out, self._columns, self._explode = out, columns, explode

    def write(self, row: Row) -> None:
        for line in as_object(row, self._columns, self._explode):
            self._out.write(json.dumps(line, ensure_ascii=False) + "\n")


TEXT_SINKS: dict[str, type[CsvSink | JsonlSink]] = {"csv": CsvSink, "jsonl": JsonlSink}


class PartFile:
    """The rows so far, in the order in which they came. It is there while the run is, and after it if the run did not end."""

    def __init__(self, output: Path, form: Form, columns: Sequence[Column], explode: str) -> None:
        self.path = output.with_name(f"{output.name}.part")
        self._file = self.path.open("w", encoding="utf-8", newline="")
        if form == "csv":
            self._file.write(BOM)
        self._sink = TEXT_SINKS[form](self._file, columns, explode)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._sink.write(row)
        self._file.flush()

    def close(self, *, remove: bool) -> None:
        with suppress(OSError):  # on a full disk the last rows can't be written; the state file has them
            self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)


def all_columns(state: State, columns: list[Column], explode: str) -> list[Column]:
    """The schema's columns, and those that only the records have."""
    return columns + more_columns(columns, state.rows(), explode)


def write_file(state: State, output: Path, form: Form, columns: Sequence[Column], explode: str, *, mode: int) -> int:
    """Writes the whole table beside the output and then puts it in the output's place. Returns the number of rows.

    `mode`: the permissions of a file that is new.
    """
    count = 0
    with replaced(output, mode) as new:
        if form == "xlsx":
            from cli.run.workbook import write_workbook

            return write_workbook(new, _lines(state.rows(), columns, explode), columns)
        with new.open("w", encoding="utf-8", newline="") as file:
            if form == "csv":
                file.write(BOM)
            sink = TEXT_SINKS[form](file, columns, explode)
            for row in state.rows():
                sink.write(row)
                count += len(list(cells(row, columns, explode))) if explode else 1
            file.flush()
            os.fsync(file.fileno())
    return count


@contextmanager
def replaced(output: Path, mode: int) -> Iterator[Path]:
    """A new file beside the output, which takes its place after the block. If the block raises, the output stays as it is."""
    new = output.with_name(f".{output.name}.{os.getpid()}.new")
    try:
        yield new
        with suppress(FileNotFoundError):
            mode = output.stat().st_mode & 0o777
        new.chmod(mode)
        new.replace(output)
    finally:
        new.unlink(missing_ok=True)


def _lines(rows: Iterator[Row], columns: Sequence[Column], explode: str) -> Iterator[list[Any]]:
    for row in rows:
        yield from cells(row, columns, explode)


def csv_line(values: Iterable[Any]) -> str:
    return ",".join(map(_csv_cell, values)) + "\r\n"


def _csv_cell(value: Any) -> str:
    text = as_text(value)
    if isinstance(value, str):
        text = value.replace("\x00", "")
        if text.lstrip(" \u00a0\ufeff").startswith(_FORMULA):
            text = f"'{text}"
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if _SPECIAL.search(text) else text
