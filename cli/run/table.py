"""Makes rows of a table from records: which columns there are, and what stands in them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cli.run.types import Row

FILE, STATUS, ERROR, RESULT = "file", "status", "error", "result"
UNSUPPORTED, EVIDENCE, EVIDENCE_ERROR = "unsupported", "evidence", "evidenceError"
FIXED = frozenset((FILE, STATUS, ERROR))
BETWEEN = "; "  #: between the names of fields
MOST_COLUMNS = 1000  #: of records; spreadsheets have 16,384 at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column for a field of the records."""

    path: tuple[str, ...]  #: the keys that lead to the value
    title: str
    date: bool = False  #: the schema says that its texts are dates
    #: It names the fields whose values do not stand in the picture. Its path is empty.
    unsupported: bool = False


def columns_of(schema: Mapping[str, Any] | None, explode: str = "", *, evidence: bool = False) -> list[Column]:
    """The columns that the schema promises, in its order. Without a schema, the one column `result`.

    `evidence`: a first column names the fields whose values do not stand in the picture. Raises ValueError if `explode` is no array of the schema.
    """
    if evidence:
        return [Column(path=(), title=UNSUPPORTED, unsupported=True), *_apart(columns_of(schema, explode))]
    if schema is None:
        if explode:
            raise ValueError("--explode needs a --schema with an array.")
        return [Column(path=(RESULT,), title=RESULT)]
    paths = list(_paths(schema, (), schema))
    exploded = tuple(explode.split(".")) if explode else ()
    if exploded:
        at = _at(schema, exploded)
        if at is None or "array" not in _types(at):
            arrays = [".".join(path) for path, part in paths if "array" in _types(part)]
            known = f" Its arrays are: {', '.join(arrays)}." if arrays else " It has no array."
            raise ValueError(f"The schema has no array called {explode} to --explode.{known}")
        inner = list(_paths(_resolved(at.get("items") or {}, schema), exploded, schema)) or [(exploded, at.get("items") or {})]
        paths = [each for path, part in paths for each in (inner if path == exploded else [(path, part)])]
    return [
        Column(path=path, title=title_of(path), date=part.get("format") == "date" and not part.get("properties"))
        for path, part in paths[:MOST_COLUMNS]
    ]


def _apart(columns: Iterable[Column]) -> list[Column]:
    """The columns, with other titles for those fields that have the name of a member of the evidence."""
    taken = (UNSUPPORTED, EVIDENCE, EVIDENCE_ERROR)
    return [replace(column, title=f"{RESULT}.{column.title}") if column.title in taken else column for column in columns]


def title_of(path: Sequence[str]) -> str:
    """The dotted path. A field with the name of a fixed column is told from it."""
    title = ".".join(path)
    return f"{RESULT}.{title}" if title in FIXED else title


def more_columns(columns: Sequence[Column], rows: Iterable[Row], explode: str = "") -> list[Column]:
    """The columns for fields that the schema does not name, in the order in which they first come."""
    known = {column.path for column in columns}
    prefixes = {path[:length] for path in known for length in range(len(path) + 1)}
    found: dict[tuple[str, ...], None] = {}
    for row in rows:
        if not isinstance(row.result, dict):
            continue
        for record in exploded(row.result, explode):
            for path in _leaves(record, (), prefixes):
                if path not in known and len(known) + len(found) < MOST_COLUMNS:
                    found.setdefault(path)
    more = [Column(path=path, title=title_of(path)) for path in found]
    return _apart(more) if any(column.unsupported for column in columns) else more


def exploded(record: Any, explode: str) -> list[Any]:
    """The record once for each element of its array `explode`, with the element in the array's place. At least one."""
    if not explode or not isinstance(record, dict):
        return [record]
    path = explode.split(".")
    array = value_at(record, path)
    if not isinstance(array, list) or not array:
        return [_with(record, path, None)]
    return [_with(record, path, element) for element in array]


def cells(row: Row, columns: Sequence[Column], explode: str = "") -> Iterator[list[Any]]:
    """The rows of the table for one image, each as: file, the columns, status, error."""
    status = {"done": "succeeded", "failed": "failed"}.get(row.state, "pending")
    error = f"{row.message}" if row.state == "failed" else ""
    result = row.result if row.state == "done" else None
    if not isinstance(result, dict):
        # A text, or a record that is no object, stands in the first column if that is the one called `result`.
        plain = [_unsupported(row) if column.unsupported else result if column.path == (RESULT,) else None for column in columns]
        yield [row.name, *plain, status, error]
        return
    for record in exploded(result, explode):
        values = (_unsupported(row) if column.unsupported else value_at(record, column.path) for column in columns)
        yield [row.name, *values, status, error]


def _unsupported(row: Row) -> str | None:
    """The names of the fields whose values do not stand in the picture, or in brackets why that is not known."""
    if row.state != "done" or not row.evidence:
        return None
    names = [pointer[1:].replace("~1", "/").replace("~0", "~") or RESULT for pointer in row.evidence[UNSUPPORTED]]
    code = row.evidence[EVIDENCE_ERROR]
    return BETWEEN.join([*names, *([f"({code})"] if code else [])])


def as_object(row: Row, columns: Sequence[Column], explode: str = "") -> Iterator[dict[str, Any]]:
    """The rows for one image as JSON objects. Nested fields stay nested."""
    for line in cells(row, columns, explode):
        result: dict[str, Any] = {}
        for column, value in zip(columns, line[1:-2], strict=True):
            if column.unsupported:
                continue
            part = result
            keys = (column.title,) if len(column.path) == 1 else column.path
            for key in keys[:-1]:
                part = part.setdefault(key, {})
            part[keys[-1]] = value
        shown = {} if row.evidence is None or row.state != "done" else row.evidence
        yield {FILE: row.name, **result, STATUS: line[-2], ERROR: line[-1] or None, **shown}


def value_at(record: Any, path: Sequence[str]) -> Any:
    """The value that the keys lead to. None if there is none."""
    for key in path:
        if not isinstance(record, dict):
            return None
        record = record.get(key)
    return record


def as_text(value: Any) -> str:
    """A cell's text. Objects and arrays are JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _with(record: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**record, path[0]: value}
    inner = record.get(path[0])
    return {**record, path[0]: _with(inner if isinstance(inner, dict) else {}, path[1:], value)}


def _leaves(value: Any, path: tuple[str, ...], prefixes: set[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The paths of the values that need a column. An object is opened only if the schema opens it."""
    if isinstance(value, dict) and path in prefixes and (not path or any(len(each) > len(path) for each in prefixes)):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key), prefixes)
    elif path and value is not None:
        yield path


def _paths(
    schema: Mapping[str, Any], path: tuple[str, ...], root: Mapping[str, Any], depth: int = 0
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The fields of the schema with their parts of it. Objects with named fields are opened."""
    schema = _resolved(schema, root)
    for name, given in (schema.get("properties") or {}).items():
        part = _resolved(given, root)
        if part.get("properties") and depth < 8:
            yield from _paths(part, (*path, name), root, depth + 1)
        else:
            yield (*path, name), part


def _at(root: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any] | None:
    part: Mapping[str, Any] = _resolved(root, root)
    for name in path:
        inner = (part.get("properties") or {}).get(name)
        if inner is None:
            return None
        part = _resolved(inner, root)
    return part


def _resolved(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows a $ref inside the schema."""
    for _ in range(8):
        ref = part.get("$ref") if isinstance(part, dict) else None
        if not isinstance(ref, str) or not ref.startswith("#"):
            break
        target: Any = root
        for step in ref.removeprefix("#").strip("/").split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {}) if step and isinstance(target, dict) else target
        part = target
    return part if isinstance(part, dict) else {}


def _types(part: Mapping[str, Any]) -> Sequence[str]:
    kind = part.get("type") or ()
    return (kind,) if isinstance(kind, str) else tuple(kind)
