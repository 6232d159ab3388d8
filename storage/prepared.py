"""A connection on which a statement that is run again and again takes few of SQLAlchemy's steps.

Each time SQLAlchemy runs a statement, it looks its compiled form up by the statement's structure, puts its parameters together,
and makes an object for the run and one for its result. That takes as long as the database needs for a small statement. Most statements
here are built once and kept (`@cache`). From its second run on, such a statement is compiled already: its values go straight to the driver.

SQLAlchemy runs all others: those that are built for each use, those whose text depends on their values, those that return something
for each of several rows of values, and those whose rows have different columns. It also translates every error.

A result has its rows and their number. It finds a column by its name or its place, not by the table's column, and knows no primary key
of what was inserted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Executable
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase

_KINDS = (SelectBase, UpdateBase)  #: SELECT, and INSERT, UPDATE and DELETE
#: Options of a connection with which SQLAlchemy reads results or compiles in ways of its own.
_OWN_WAYS = frozenset(
    {"yield_per", "stream_results", "max_row_buffer", "schema_translate_map", "compiled_cache", "preserve_rowcount"}
)

Process = Callable[[Any], Any]
Values = dict[str, Any] | list[Any]  #: as the driver takes them: by name, or in order
Given = dict[str, Any] | list[dict[str, Any]]  #: one row of values by name, or several

#: By statement: what it is for a dialect, names of parameters, and whether there are several rows of them. None: SQLAlchemy runs it.
_KNOWN: WeakKeyDictionary[Executable, dict[tuple[str, tuple[str, ...], bool], Prepared | None]] = WeakKeyDictionary()


class Rows(IteratorResult[Any]):
    """What a statement has found or changed, with the methods of SQLAlchemy's result."""

    def __init__(self, columns: SimpleResultMetaData, rows: Sequence[Any], rowcount: int) -> None:
        super().__init__(columns, iter(rows))
        self.rowcount = rowcount  #: how many rows were found or changed


class Prepared:
    """A compiled statement. Values with these keys are all that a run needs."""

    def __init__(self, compiled: SQLCompiler, dialect: Dialect, keys: tuple[str, ...]) -> None:
        """Raises LookupError if the statement needs another value."""
        self.text = compiled.string
        self._order = compiled.positiontup
        self._constants: dict[str, Any] = {}
        self._given: list[tuple[str, str, Process | None]] = []  #: name in the text, key, what makes the driver's value of it
        processes: Mapping[str, Process] = compiled._bind_processors  # type: ignore[assignment]  # noqa: SLF001
        defaults = {
            compiled._within_exec_param_key_getter(column): column.default.arg  # type: ignore[union-attr]  # noqa: SLF001
            for column in compiled.insert_prefetch
        }
        for parameter, name in compiled.bind_names.items():
            process = processes.get(name)
            key = parameter.key if parameter.key in keys else name
            if key in keys:
                self._given.append((name, key, process))
            elif parameter.required:
                raise LookupError(key)
            else:
                value = defaults.get(name, parameter.effective_value)
                self._constants[name] = process(value) if process else value
        self._dialect = dialect
        self._columns = compiled._result_columns  # noqa: SLF001
        self._shape = None if self._columns else SimpleResultMetaData(())

    def values(self, given: Mapping[str, Any]) -> Values:
        values = dict(self._constants)
        for name, key, process in self._given:
            value = given[key]
            values[name] = process(value) if process else value
        return values if self._order is None else [values[name] for name in self._order]

    def rows(self, cursor: Any) -> Rows:
        """All that the cursor has found. What makes Python's value of a driver's one depends on the driver's type too."""
        if self._shape is None:
            kinds = [column[1] for column in cursor.description]
            reads = [
                column.type._cached_result_processor(self._dialect, kind)  # noqa: SLF001
                for column, kind in zip(self._columns, kinds, strict=True)
            ]
            names = [column.keyname for column in self._columns]
            self._shape = SimpleResultMetaData(names, _processors=reads if any(reads) else None)
        return Rows(self._shape, cursor.fetchall() if self._columns else (), cursor.rowcount)


class QuickConnection(Connection):
    """Runs statements as SQLAlchemy's own connection, those that it has run before in fewer steps."""

    def execute(self, statement: Executable, parameters: Any = None, *, execution_options: Any = None) -> Any:
        given = parameters or {}
        if type(given) is list and len(given) == 1:
            given = given[0]
        many = type(given) is list
        row = given[0] if many else given
        if execution_options is None and type(row) is dict and isinstance(statement, _KINDS) and self._is_plain():
            prepared = _prepared(statement, tuple(row), self.dialect, many=many)
            if prepared is not None and (not many or all(type(other) is dict and other.keys() == row.keys() for other in given)):
                return self._run(prepared, given)
        return super().execute(statement, parameters, execution_options=execution_options)

    def scalar(self, statement: Executable, parameters: Any = None, *, execution_options: Any = None) -> Any:
        return self.execute(statement, parameters, execution_options=execution_options).scalar()

    def _is_plain(self) -> bool:
        """Whether a transaction is open, and nobody wants to hear of the statements or to have their results in another way."""
        transaction = self.get_transaction()
        if transaction is None or not transaction.is_active or self.in_nested_transaction():
            return False
        if self._echo or not _OWN_WAYS.isdisjoint(self.get_execution_options()):
            return False
        if not (self._has_events or self.engine._has_events):  # noqa: SLF001 - asking each event by itself takes longer
            return True
        heard = self.dispatch
        return not (heard.before_execute or heard.before_cursor_execute or heard.after_cursor_execute or heard.after_execute)

    def _run(self, prepared: Prepared, given: Given) -> Rows:
        """Raises what SQLAlchemy raises."""
        cursor: Any = None
        many = isinstance(given, list)
        try:
            values = [prepared.values(row) for row in given] if isinstance(given, list) else prepared.values(given)
        except Exception as error:  # noqa: BLE001 - it is raised as SQLAlchemy's
            self._handle_dbapi_exception(error, prepared.text, None, None, None)
        try:
            cursor = self.connection.cursor()
            (cursor.executemany if many else cursor.execute)(prepared.text, values)
            rows = prepared.rows(cursor)
            cursor.close()
        except BaseException as error:  # noqa: BLE001 - a broken connection leaves the pool
            # SQLAlchemy makes its own error of the driver's, and of any other one if it is told the statement.
            text = prepared.text if isinstance(error, self.dialect.loaded_dbapi.Error) else None
            self._handle_dbapi_exception(error, text, None, cursor, None)
        return rows


def _prepared(statement: Executable, keys: tuple[str, ...], dialect: Dialect, *, many: bool) -> Prepared | None:
    known = _KNOWN.get(statement)
    if known is None:
        _KNOWN[statement] = {}  # most statements that run once never run again
        return None
    key = dialect.name, keys, many
    if key not in known:
        known[key] = _prepare(statement, keys, dialect, many=many)
    return known[key]


def _prepare(statement: Any, keys: tuple[str, ...], dialect: Dialect, *, many: bool = False) -> Prepared | None:
    """None if the statement's text depends on its values, or SQLAlchemy does something of its own with it."""
    if statement._execution_options:  # noqa: SLF001
        return None
    compiled = statement.compile(dialect=dialect, column_keys=sorted(keys), for_executemany=many)
    if not isinstance(compiled, SQLCompiler) or compiled.update_prefetch:
        return None
    if many and compiled._result_columns:  # noqa: SLF001
        return None  # SQLAlchemy puts several rows into one statement, so that it gets something for each
    if compiled.literal_execute_params or compiled.post_compile_params or compiled.escaped_bind_names:
        return None
    names = [column.keyname for column in compiled._result_columns]  # noqa: SLF001
    if len(set(names)) < len(names):
        return None
    if not all(column.default is not None and column.default.is_scalar for column in compiled.insert_prefetch):
        return None
    try:
        return Prepared(compiled, dialect, keys)
    except LookupError:
        return None
