"""Writes a workbook for spreadsheets with constant memory. Texts stay texts, so leading zeros and long numbers survive."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import xlsxwriter

from cli.run.table import ERROR, FILE, STATUS, Column, as_text

LONGEST_CELL = 32_767  #: characters; spreadsheets take no more
MOST_ROWS = 1_048_576  #: of a sheet, with its header
MOST_DIGITS = 15  #: spreadsheets keep this many digits of a number
WIDEST, NARROWEST = 60, 8  #: characters
CUT = " … (cut)"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
#: Characters that XML can't hold.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def write_workbook(path: Path, lines: Iterable[Sequence[Any]], columns: Sequence[Column]) -> int:
    """Writes lines of file, columns, status, error. Returns how many. A sheet that is full is followed by another."""
    titles = [FILE, *(column.title for column in columns), STATUS, ERROR]
    dates = {at for at, column in enumerate(columns, 1) if column.date}
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(str(path), options)
    bold = book.add_format({"bold": True, "bottom": 1})
    day = book.add_format({"num_format": "yyyy-mm-dd"})
    count = 0
    sheet: Any = None
    at = MOST_ROWS
    widths = [len(title) for title in titles]
    try:
        for line in lines:
            if at >= MOST_ROWS:
                _set_widths(sheet, widths)
                sheet, at = book.add_worksheet(), 1
                _begin(sheet, titles, bold)
            for place, value in enumerate(line):
                widths[place] = max(widths[place], _write(sheet, at, place, value, day if place in dates else None))
            at += 1
            count += 1
        if sheet is None:
            sheet = book.add_worksheet()
            _begin(sheet, titles, bold)
        _set_widths(sheet, widths)
    finally:
        book.close()
    return count


def _begin(sheet: Any, titles: Sequence[str], bold: Any) -> None:
    sheet.freeze_panes(1, 1)
    for place, title in enumerate(titles):
        sheet.write_string(0, place, _writable(title), bold)


def _set_widths(sheet: Any, widths: Sequence[int]) -> None:
    if sheet is not None:
        for place, width in enumerate(widths):
            sheet.set_column(place, place, max(NARROWEST, min(width + 1, WIDEST)))


def _write(sheet: Any, row: int, place: int, value: Any, day: Any) -> int:
    """Writes a cell with its own type. Returns about how many characters it shows."""
    if value is None or value == "":
        return 0
    if isinstance(value, bool):
        sheet.write_boolean(row, place, value)
        return 5
    if isinstance(value, int | float) and _fits(value):
        sheet.write_number(row, place, value)
        return len(str(value))
    if day is not None and isinstance(value, str) and _DATE.fullmatch(value):
        try:
            found = date.fromisoformat(value)
        except ValueError:
            found = None
        if found and found.year >= 1900:
            sheet.write_datetime(row, place, found, day)
            return 10
    text = _writable(as_text(value))
    sheet.write_string(row, place, text)
    return max((len(part) for part in text[:2000].split("\n")), default=0)


def _fits(number: float) -> bool:
    """Whether a spreadsheet keeps the number as it is. It rounds whole numbers of more digits."""
    return math.isfinite(number) and (isinstance(number, float) or abs(number) < 10**MOST_DIGITS)


def _writable(text: str) -> str:
    text = _UNWRITABLE.sub("\ufffd", text)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - len(CUT)] + CUT
