"""Writes records as CSV for spreadsheets: RFC 4180, UTF-8 with a byte order mark, and no cell that begins a formula."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from api.render import item_json
from pipeline.merge import dump_json
from pipeline.numbers import read_json
from storage.job.listing import ItemView

BOM = b"\xef\xbb\xbf"  #: without it, Excel reads the text in its own code page
FIXED = ("index", "customId", "source", "status", "code", "message")
MOST_COLUMNS = 1000  #: columns for record keys; spreadsheets have at most 16,384, and all names are held in memory
MORE = "more"  #: the column for keys without a column of their own, as JSON
DEEPEST = 10  #: levels of objects that become columns; objects further inside are written as JSON
CHECKED = "checked"  #: the column that says whether a person has checked the image, if one was changed or checked
UNSUPPORTED = (
    "unsupported"  #: the column for the names of fields whose values do not stand in the picture, of a job with evidence
)
BETWEEN = "; "  #: between these names
EVIDENCE_ERROR = (
    "evidenceError"  #: the column that says why the evidence of an image says little or nothing, if one has such an error
)
RESULT = "result"  #: the column for results that are not objects

#: Spreadsheets read a cell with one of these prefixes as a formula. In East Asian locales, so do the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = '"'
_SPECIAL = re.compile(r'[",\r\n]')


class Sheet:
    """Learns the columns from all records first, and then writes the rows."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}  # keys of the records, in the order in which they first came
        self._plain = False
        self._more = False
        self._evidence = False  # whether the job has evidence
        self._evidence_error = False
        self._checked = False  # whether people have corrected or checked images

    def learn(self, items: Iterable[ItemView]) -> None:
        for item in items:
            self._checked = self._checked or item.corrections is not None
            self._evidence = self._evidence or item.evidence is not None
            self._evidence_error = self._evidence_error or bool(item.evidence and item.evidence.fault)
            if not isinstance(item.result, dict):
                self._plain = self._plain or item.result is not None
                continue
            for key in item.result:
                if key in self._keys:
                    continue
                if len(self._keys) < MOST_COLUMNS:
                    self._keys[key] = None
                else:
                    self._more = True

    def titles(self) -> list[str]:
        plain, more = [RESULT] * self._plain, [MORE] * self._more
        checked = [CHECKED] * self._checked
        evidence = [UNSUPPORTED] * self._evidence + [EVIDENCE_ERROR] * self._evidence_error
        taken = {*FIXED, *checked, *evidence, *plain, *more}
        names = [f"{RESULT}.{key}" if key in taken else key for key in self._keys]
        return [*FIXED, *checked, *evidence, *plain, *names, *more]

    def header(self) -> str:
        return _line(self.titles())

    def row(self, item: ItemView) -> str:
        return _line(self.cells(item))

    def cells(self, item: ItemView) -> list[Any]:
        """The values of the image's row, None where there is none."""
        shown = item_json(item)
        record = item.result if isinstance(item.result, dict) else {}
        cells = [shown[name] for name in FIXED]
        if self._checked:
            cells.append(bool(item.corrections and item.corrections["checked"]))
        if self._evidence:
            cells.append(BETWEEN.join(map(_field, item.evidence.unsupported)) if item.evidence else None)
        if self._evidence_error:
            cells.append(item.evidence.fault["code"] if item.evidence and item.evidence.fault else None)
        if self._plain:
            cells.append(None if isinstance(item.result, dict) else item.result)
        cells += [record.get(key) for key in self._keys]
        if self._more:
            left = {key: value for key, value in record.items() if key not in self._keys}
            cells.append(left or None)
        return cells


def _field(pointer: str) -> str:
    """The name of the field that a JSON Pointer leads to: `lines/0/price`. The whole result is `result`."""
    return pointer[1:].replace("~1", "/").replace("~0", "~") or RESULT


def merged_table(result: str, *, is_json: bool) -> str:
    """The table of a merged answer as CSV: see `merged_rows`."""
    return "".join(map(_line, merged_rows(result, is_json=is_json)))


def merged_rows(result: str, *, is_json: bool) -> Iterator[list[Any]]:
    """The table of a merged answer, its titles first. `result` is empty if the job failed; then the table has no other row.

    A JSON array has a row for each element. Any other answer is one row. Objects inside objects become columns of their own.
    """
    document = read_json(result) if is_json and result else result
    rows = [_flat(row) for row in (document if isinstance(document, list) else [document] if result else [])]
    columns = list(dict.fromkeys(path for row in rows for path in row)) or [()]
    more = [MORE] * (len(columns) > MOST_COLUMNS)
    columns, left = columns[:MOST_COLUMNS], columns[MOST_COLUMNS:]
    yield [*(".".join(path) or RESULT for path in columns), *more]
    for row in rows:
        others = {".".join(path): row[path] for path in left if path in row}
        yield [*(row.get(path) for path in columns), *([others or None] * len(more))]


def _flat(value: Any) -> dict[tuple[str, ...], Any]:
    """The members of an object, and of the objects in it, by their path. A value that is no object has the empty path."""
    flat: dict[tuple[str, ...], Any] = {}
    left: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while left:
        path, inner = left.pop()
        if isinstance(inner, dict) and inner and len(path) < DEEPEST:
            left += [((*path, key), inner[key]) for key in reversed(inner)]
        else:
            flat[path] = inner
    return flat


def _line(cells: Iterable[Any]) -> str:
    """A line of CSV. The standard library's writer is not used, because it looks at each character and makes only 5 MB/s."""
    return ",".join(map(_quoted, map(_cell, cells))) + "\r\n"


def _quoted(cell: str) -> str:
    return f'"{cell.replace(_QUOTE, _QUOTE * 2)}"' if _SPECIAL.search(cell) else cell


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return dump_json(value)  # numbers too, because -5 is a number and not a formula
    value = value.replace("\x00", "")
    return f"'{value}" if value.lstrip(" \u00a0\ufeff").startswith(_FORMULA) else value
