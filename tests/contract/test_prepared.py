"""Statements that run again and again do what they do in SQLAlchemy's own way."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Executable,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError, StatementError

from pipeline.errors import Transient
from storage import prepared
from storage.database import Database, now_ms
from storage.prepared import QuickConnection
from storage.queue.steps import Lease
from storage.sql_errors import ConstraintViolated
from tests.contract.databases import also_through_pgbouncer
from tests.harness import b64, running
from tests.rows import at_once, eventually

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("size", BigInteger, nullable=False, default=7),
    Column("share", Float),
    Column("good", Boolean, nullable=False, default=False),
    Column("value", JSON),
    UniqueConstraint("name"),
)


pytest_generate_tests = also_through_pgbouncer


@pytest.fixture
def base(database: Database) -> Database:
    metadata.create_all(database.engine)
    return database


def fewer_steps(statement: Executable, keys: tuple[str, ...], connection: Connection) -> bool:
    """Whether such a run takes few of SQLAlchemy's steps, once the statement has run before."""
    return prepared._prepare(statement, keys, connection.dialect) is not None


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20),
        "size": st.integers(-(2**63), 2**63 - 1),
        "share": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "good": st.booleans(),
        "value": st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="ascii"), max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
            max_leaves=5,
        ),
    },
)


@given(rows=st.lists(ROWS, min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_and_read_is_the_same(base, rows):
    """Each row is written twice in each way. From the second time on, the quick connection takes fewer steps."""
    add, read = insert(things), select(things).order_by(things.c.id)
    rows = [{**row, "name": None if row.get("name") is None else f"{row['name']} {number}"} for number, row in enumerate(rows)]
    found = []
    for kind in (QuickConnection, Connection):
        with kind(base.engine) as connection, connection.begin():
            connection.execute(delete(things))
            for number, row in enumerate(rows):
                for again in (0, 1):
                    more = {"name": row["name"] and row["name"] + str(again), "id": 2 * number + again}
                    connection.execute(add, {**row, **more})
            found.append([[tuple(row) for row in connection.execute(read)] for _ in range(2)])
    assert found[0][0] == found[0][1] == found[1][0] == found[1][1]


@given(rows=st.lists(ROWS, min_size=2, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_is_what_is_written_in_several_rows_at_once(base, rows):
    """The rows have the same columns. Those that a row has not drawn are those of the first one that has."""
    columns = {name: value for row in reversed(rows) for name, value in row.items()}
    rows = [
        {**columns, **row, "name": None if row.get("name") is None else f"{row['name']} {number}"}
        for number, row in enumerate(rows)
    ]
    add, change, read = insert(things), update(things).where(things.c.id == bindparam("of")), select(things).order_by(things.c.id)
    found = []
    for kind in (QuickConnection, Connection):
        with kind(base.engine) as connection, connection.begin():
            for _ in range(3):
                connection.execute(delete(things))
                connection.execute(add, [{**row, "id": number} for number, row in enumerate(rows)])
                counted = connection.execute(change, [{"of": number, "size": number} for number in range(1, 9)]).rowcount
                found.append(([tuple(row) for row in connection.execute(read)], counted))
    assert all(each == found[-1] for each in found)


def many_take_fewer_steps(statement: Executable, keys: tuple[str, ...], connection: Connection) -> bool:
    return prepared._prepare(statement, keys, connection.dialect, many=True) is not None


def test_several_rows_take_few_steps_unless_each_returns_something(base):
    keys = ("id", "name")
    with base.write() as connection:
        assert many_take_fewer_steps(insert(things), keys, connection)
        assert many_take_fewer_steps(update(things).where(things.c.id == bindparam("of")), ("of", "size"), connection)
        returning = insert(things).returning(things.c.name)
        assert not many_take_fewer_steps(returning, keys, connection)
        for turn in range(3):
            rows = [{"id": 2 * turn + number, "name": f"{turn} {number}"} for number in range(2)]
            assert sorted(connection.execute(returning, rows).scalars()) == [row["name"] for row in rows]


@pytest.mark.parametrize("second", [{"name": "b"}, ("b",), None])
def test_a_row_without_a_value_is_the_same_error_each_time(base, second):
    statement, errors = insert(things), set()
    for _ in range(4):
        with pytest.raises(SQLAlchemyError) as found, base.write() as connection:
            connection.execute(statement, [{"name": "a", "size": 1}, second])
        errors.add((type(found.value), str(found.value).partition("\n")[0]))
    assert [kind for kind, _ in errors] == [StatementError]


def add_three(connection: Connection) -> None:
    connection.execute(insert(things), [{"id": number, "name": name, "value": [number]} for number, name in enumerate("abc")])


@pytest.mark.parametrize(
    "ask",
    [
        lambda found: found.all(),
        lambda found: found.first(),
        lambda found: [row.name for row in found],
        lambda found: [row[1] for row in found],
        lambda found: found.mappings().all(),
        lambda found: found.scalars().all(),
        lambda found: found.scalars().first(),
        lambda found: [row._mapping["value"] for row in found],
        lambda found: found.rowcount,
    ],
)
def test_a_result_is_asked_in_all_the_usual_ways(base, ask: Callable[[Any], Any]):
    statement = select(things.c.id, things.c.name, things.c.value).where(things.c.id < bindparam("end")).order_by(things.c.id)
    with base.write() as connection:
        add_three(connection)
        assert fewer_steps(statement, ("end",), connection)
        first, *others = [ask(connection.execute(statement, {"end": 2})) for _ in range(3)]
    assert others == [first, first]


def test_one_row_is_asked_for_in_all_the_usual_ways(base):
    statement = select(things.c.name).where(things.c.id == bindparam("of"))
    with base.write() as connection:
        add_three(connection)
        for _ in range(3):
            assert connection.execute(statement, {"of": 1}).one() == ("b",)
            assert connection.execute(statement, {"of": 9}).one_or_none() is None
            assert connection.execute(statement, {"of": 1}).scalar_one() == "b"
            assert connection.scalar(statement, {"of": 9}) is None
            assert connection.scalars(statement, {"of": 2}).all() == ["c"]


def test_the_number_of_changed_rows_is_told(base):
    statement = update(things).where(things.c.id < bindparam("end")).values(size=things.c.size + bindparam("more"))
    with base.write() as connection:
        add_three(connection)
        assert fewer_steps(statement, ("end", "more"), connection)
        assert [connection.execute(statement, {"end": end, "more": 1}).rowcount for end in (2, 2, 0, 9)] == [2, 2, 0, 3]
        assert connection.scalars(select(things.c.size).order_by(things.c.id)).all() == [10, 10, 8]


def test_a_statement_returns_rows_of_what_it_writes(base):
    statement = insert(things).returning(things.c.size, things.c.value)
    with base.write() as connection:
        assert fewer_steps(statement, ("value", "name"), connection)
        for name in "abc":
            assert connection.execute(statement, {"value": {"of": name}, "name": name}).one() == (7, {"of": name})


def test_several_rows_and_one_row_in_a_list_are_written(base):
    statement = insert(things)
    with base.write() as connection:
        for first, count in ((0, 1), (1, 1), (2, 3), (5, 1)):
            connection.execute(statement, [{"id": first + more, "name": f"n{first + more}"} for more in range(count)])
        assert connection.scalars(select(things.c.name).order_by(things.c.id)).all() == [f"n{number}" for number in range(6)]


def test_a_list_of_values_may_have_any_length(base):
    """Its text depends on its values, so SQLAlchemy runs it each time."""
    statement = select(things.c.id).where(things.c.id.in_(bindparam("ids", expanding=True))).order_by(things.c.id)
    with base.write() as connection:
        add_three(connection)
        assert not fewer_steps(statement, ("ids",), connection)
        asked: list[list[int]] = [[0], [0, 2], [], [0, 1, 2]]
        assert [connection.scalars(statement, {"ids": ids}).all() for ids in asked] == asked


def test_a_text_is_run(base):
    statement = text("SELECT name FROM things WHERE id = :of")
    with base.write() as connection:
        add_three(connection)
        assert [connection.scalar(statement, {"of": of}) for of in (0, 1, 2)] == ["a", "b", "c"]


def test_a_value_in_the_statement_can_be_given_anew(base):
    statement = select(things.c.name).where(things.c.id == bindparam("of", 1))
    with base.write() as connection:
        add_three(connection)
        assert [connection.scalar(statement) for _ in range(2)] == ["b", "b"]
        assert [connection.scalar(statement, {"of": 2}) for _ in range(2)] == ["c", "c"]


def test_a_missing_value_is_an_error_each_time(base):
    statement = select(things.c.name).where(things.c.id == bindparam("of"))
    with base.write() as connection:
        add_three(connection)
        for _ in range(2):
            with pytest.raises(SQLAlchemyError, match="of"):
                connection.execute(statement)
        assert [connection.scalar(statement, {"of": 2}) for _ in range(2)] == ["c", "c"]


def test_a_default_that_is_computed_is_computed_each_time(base):
    numbers = iter(range(100))
    counted = Table(
        "counted", MetaData(), Column("id", Integer, primary_key=True, default=lambda: next(numbers)), Column("name", Text)
    )
    statement = insert(counted)
    with base.write() as connection:
        counted.create(connection)
        for name in "abc":
            connection.execute(statement, {"name": name})
        assert connection.execute(select(counted)).all() == [(0, "a"), (1, "b"), (2, "c")]


def add_names(database: Database, statement: Executable, names: str) -> None:
    with database.write() as connection:
        for name in names:
            connection.execute(statement, {"name": name})


def test_an_error_is_that_of_every_statement_and_the_next_transaction_goes_on(base):
    statement = insert(things)
    add_names(base, statement, "ab")
    for _ in range(2):
        with pytest.raises(ConstraintViolated):
            add_names(base, statement, "ca")
    add_names(base, statement, "c")
    with base.read() as connection:
        assert connection.scalars(select(things.c.name).order_by(things.c.id)).all() == ["a", "b", "c"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_connection_that_has_broken_is_replaced(base):
    statement = select(things.c.name).where(things.c.id == bindparam("of"))
    with base.write() as connection:
        add_three(connection)
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        assert [connection.scalar(statement, {"of": 1}) for _ in range(2)] == ["b", "b"]

    def broken() -> None:
        other = Database(base.engine.url.render_as_string(hide_password=False))
        with base.write() as connection:
            with other.write() as killer:
                killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            other.close()
            connection.scalar(statement, {"of": 1})

    with pytest.raises(Transient):
        broken()
    with base.write() as connection:
        assert [connection.scalar(statement, {"of": 1}) for _ in range(2)] == ["b", "b"]


def test_who_listens_hears_of_every_statement(base):
    statement = select(things.c.name).where(things.c.id == bindparam("of"))
    with base.write() as connection:
        add_three(connection)
        connection.scalar(statement, {"of": 1})
        connection.scalar(statement, {"of": 1})
    heard: list[str] = []
    event.listen(base.engine, "after_cursor_execute", lambda *heard_of: heard.append(heard_of[2]))
    with base.write() as connection:
        connection.scalar(statement, {"of": 1})
    assert len(heard) == 1


def test_a_statement_that_is_gone_leaves_nothing(base):
    gc.collect()
    before = len(prepared._KNOWN)
    with base.write() as connection:
        for number in range(50):
            statement = select(things.c.name).where(things.c.id == number)
            connection.scalar(statement)
            connection.scalar(statement)
    del statement
    gc.collect()
    assert len(prepared._KNOWN) <= before + 1


class Later:
    """Takes cleanup steps, and runs them when it is told."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def add(self, _lease: Lease, run: Callable[[], object], _interrupted: object) -> None:
        self.waiting.append(run)


def test_every_statement_of_a_small_request_takes_few_steps(tmp_path, database_url, monkeypatch):
    body = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}
    cleaning: Any = Later()
    own = Connection.execute
    long_way: list[Any] = []

    def noted(connection: Connection, statement: Any, *values: Any, **options: Any) -> Any:
        long_way.append(statement)
        return own(connection, statement, *values, **options)

    with running(tmp_path, workers_count=1, DATABASE_URL=database_url) as house:
        house.work = replace(house.work, cleaning=cleaning)
        for _ in range(3):
            assert house.post(body).status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "execute", noted)
            assert house.post(body).status_code == 200
        assert long_way == []
        eventually(lambda: len(cleaning.waiting) == 4)  # the answers do not wait for the cleanup
        for run in cleaning.waiting:
            run()


def test_the_clock_is_read_each_time(database):
    statement = select(now_ms())
    with database.write() as connection:
        first = connection.scalar(statement)
        eventually(lambda: connection.scalar(statement) > first)


def test_only_statements_are_prepared(base):
    with base.write() as connection:
        for _ in range(3):
            assert connection.scalar(lowered := func.lower("A")) == "a"
            assert connection.scalar(lowered) == "a"
            with pytest.raises(SQLAlchemyError):
                connection.execute("SELECT 1")  # type: ignore[call-overload]


def test_columns_of_one_name_are_told_apart_by_their_place(base):
    statement = select(things.c.id, things.c.size.label("id")).where(things.c.id == bindparam("of"))
    with base.write() as connection:
        add_three(connection)
        for _ in range(3):
            row = connection.execute(statement, {"of": 1}).one()
            assert tuple(row) == (1, 7)
            with pytest.raises(SQLAlchemyError, match="Ambiguous"):
                row._mapping["id"]


BAD = {
    "half a character": {"name": "\ud800"},
    "too large a number": {"size": 2**70},
    "no JSON": {"value": {1, 2}},
    "no number": {"size": "many"},
    "a character of code 0": {"name": "a\x00b"},
}


@pytest.mark.parametrize(
    "before", [[], [{"id": 0, "value": 1, "size": 1, "name": "before"}]], ids=["one row", "the second of two rows"]
)
@pytest.mark.parametrize("name", BAD)
def test_a_value_that_the_database_does_not_take_is_the_same_error_each_time(base, name, before):
    statement = insert(things)
    errors = []
    for _ in range(4):
        try:
            with base.write() as connection:
                connection.execute(delete(things))
                connection.execute(statement, [*before, {"id": 1, "value": 1, "size": 1, "name": None, **BAD[name]}])
        except Exception as error:
            errors.append((type(error), type(error.__cause__), str(error).partition("\n")[0]))
        else:
            errors.append((type(None), type(None), ""))
    assert len(set(errors)) == 1


def test_a_statement_is_run_anew_in_many_threads(base):
    statement = select(things.c.name).where(things.c.id == bindparam("of"))
    with base.write() as connection:
        add_three(connection)

    def ask() -> list[str]:
        with base.read() as connection:
            return [connection.scalar(statement, {"of": number % 3}) for number in range(30)]

    assert at_once(*[ask] * 8) == [list("abc") * 10] * 8
