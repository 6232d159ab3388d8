"""Writes records as a workbook for spreadsheets, row by row, with constant memory. Texts stay texts, so none becomes a formula."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import IO, Any

import xlsxwriter

from pipeline.errors import os_errors
from pipeline.merge import dump_json

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PIECE = 1 << 16  #: bytes
LONGEST_CELL = 32_767  #: characters; spreadsheets take no more
MOST_DIGITS = 15  #: spreadsheets keep this many digits of a number
_CUT = " … (cut)"
#: Characters that XML can't hold.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_OPTIONS = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}


def workbook(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """The bytes of a workbook with one sheet. It is written to a temporary file first, because its directory stands at its end."""
    with os_errors(), tempfile.TemporaryFile() as file:
        _write(file, titles, rows)
        file.seek(0)
        while piece := file.read(PIECE):
            yield piece


def _write(file: IO[bytes], titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with xlsxwriter.Workbook(file, _OPTIONS) as book:
        bold = book.add_format({"bold": True})
        sheet = book.add_worksheet()
        sheet.freeze_panes(1, 0)
        for place, title in enumerate(titles):
            sheet.write_string(0, place, _writable(title), bold)
        for at, row in enumerate(rows, 1):
            for place, value in enumerate(row):
                _write_cell(sheet, at, place, value)


def _write_cell(sheet: Any, at: int, place: int, value: Any) -> None:
    if value is None or value == "":
        return
    if isinstance(value, bool):
        sheet.write_boolean(at, place, value)
    elif isinstance(value, int | float | Decimal) and _fits(value):
        sheet.write_number(at, place, float(value))
    else:
        sheet.write_string(at, place, _writable(value if isinstance(value, str) else dump_json(value)))


def _fits(number: float | Decimal) -> bool:
    """Whether a spreadsheet keeps the number as it is. It rounds numbers of more digits, such as those of accounts."""
    if isinstance(number, float):
        return math.isfinite(number)
    return len(Decimal(number).as_tuple().digits) <= MOST_DIGITS


def _writable(text: str) -> str:
    text = _UNWRITABLE.sub("\ufffd", text)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - len(_CUT)] + _CUT
