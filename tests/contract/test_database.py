"""What the database promises, whichever it is: its clock, its transactions, its migrations."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from inspect import getsource as inspect_source

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, func, insert, inspect, select, text, update

from config.roles import CONNECTIONS
from config.settings import load_settings
from pipeline.errors import Transient
from pipeline.numbers import read_json, write_json
from storage import schema
from storage.database import (
    Database,
    _alembic_config,
    migrate,
    newest_revision,
    now_ms,
    open_database,
    schema_is_current,
    schema_serves,
)
from storage.job import totals
from storage.sql_errors import ConstraintViolated, NoConnectionFree
from testbed.pgbouncer import through_pgbouncer
from tests.contract.databases import also_through_pgbouncer
from tests.migrated import opened
from tests.rows import at_once, new_account

MIGRATE = """
import sys
from storage.database import Database, migrate
database = Database(sys.argv[1], prepares=sys.argv[2] == "prepares")
print("ready", flush=True)
sys.stdin.readline()
migrate(database)
print("done", flush=True)
"""


pytest_generate_tests = also_through_pgbouncer


@pytest.fixture
def empty(database_url):
    made = opened(database_url)
    yield made
    made.close()


def account(number: int) -> dict[str, object]:
    return {"id": f"acc_{number}", "name": "test", "created_at": 0}


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(schema.accounts_table)).scalar_one()


# Values


def test_records_keep_the_digits_of_their_numbers(database):
    record = read_json('{"total": 12.50, "rate": 0.1, "count": 3, "text": "12.50"}')
    kept = {"account": "acc_1", "key": "k", "result": record, "expires_at": 0}
    with database.write() as connection:
        connection.execute(insert(schema.accounts_table).values(account(1)))
        connection.execute(insert(schema.answers_table).values(kept))
    with database.read() as connection:
        read = connection.scalar(select(schema.answers_table.c.result))
    assert write_json(read) == '{"total": 12.50, "rate": 0.1, "count": 3, "text": "12.50"}'


# The clock


def test_the_clock_gives_whole_milliseconds_since_1970(database):
    before = time.time() * 1000
    with database.read() as connection:
        now = connection.scalar(select(now_ms()))
    assert isinstance(now, int)
    assert before - 2 <= now <= time.time() * 1000 + 2  # julianday is rounded to a millisecond


def test_the_clock_goes_on_inside_a_transaction(database):
    with database.write() as connection:
        first = connection.scalar(select(now_ms()))
        ends = time.monotonic() + 10
        while connection.scalar(select(now_ms())) <= first:
            assert time.monotonic() < ends, "it stands still"


def test_the_clock_can_be_reckoned_with_and_written(database):
    with database.write() as connection:
        connection.execute(insert(schema.accounts_table).values(id="acc_1", name="n", created_at=now_ms() + 60_000))
        assert connection.scalar(select(schema.accounts_table.c.created_at - now_ms())) in range(50_000, 60_001)
        assert connection.scalar(select(schema.accounts_table.c.created_at > now_ms()))


# Transactions


def test_a_write_is_there_for_the_next_reader(database):
    with database.write() as connection:
        connection.execute(insert(schema.accounts_table).values(account(1)))
    assert count(database) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_raises_leaves_nothing(database, error):
    def write():
        with database.write() as connection:
            connection.execute(insert(schema.accounts_table).values(account(1)))
            raise error

    with pytest.raises(error):
        write()
    assert count(database) == 0


def test_a_write_that_the_schema_refuses_leaves_nothing_of_its_transaction(database):
    def write():
        with database.write() as connection:
            connection.execute(insert(schema.accounts_table).values(account(1)))
            connection.execute(insert(schema.accounts_table).values(account(1)))

    with pytest.raises(ConstraintViolated):
        write()
    assert count(database) == 0


def test_a_row_that_points_at_nothing_is_refused(database):
    with pytest.raises(ConstraintViolated), database.write() as connection:
        connection.execute(insert(schema.api_keys_table).values(id="k", account="acc_none", name="n", hash="h", created_at=0))


def test_a_reader_waits_for_no_writer_and_sees_nothing_uncommitted(database):
    with database.write() as writer:
        writer.execute(insert(schema.accounts_table).values(account(1)))
        assert count(database) == 0
    assert count(database) == 1


def test_a_writer_waits_for_no_reader(database):
    with database.read() as reader:
        reader.execute(select(schema.accounts_table)).all()
        with database.write() as writer:
            writer.execute(insert(schema.accounts_table).values(account(1)))
    assert count(database) == 1


def test_writers_at_once_wait_for_each_other_and_all_succeed(database):
    owner = new_account(database, 0)
    row = schema.accounts_table.c

    def add() -> bool:
        for _ in range(25):
            with database.write() as connection:
                connection.execute(update(schema.accounts_table).where(row.id == owner).values(available=row.available + 1))
        return True

    assert at_once(add, add, add, add) == [True] * 4
    with database.read() as connection:
        assert connection.scalar(select(row.available).where(row.id == owner)) == 100


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_connection_that_the_server_closed_while_it_was_idle_is_replaced(database, database_url, monkeypatch):
    monkeypatch.setattr("storage.database.FRESH_SECONDS", 0.0)
    with database.read() as connection:
        served = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other = opened(database_url)
    with other.read() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": served}).scalar_one()
    other.close()
    with database.write() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != served


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_connection_that_was_just_used_is_used_again_unasked(database):
    asked = []
    database.engine.dialect.do_ping = asked.append
    for use in (database.read, database.write, database.read):
        with use() as connection:
            connection.execute(select(now_ms()))
    assert asked == []


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_reader_opens_no_transaction_on_postgres_and_a_writer_does(database):
    def open_transaction(use):
        with use() as connection:
            connection.execute(select(now_ms()))
            return connection.connection.driver_connection.info.transaction_status.name == "INTRANS"

    assert [open_transaction(use) for use in (database.write, database.read, database.write)] == [True, False, True]


def test_a_second_database_object_sees_the_same_rows(database, database_url):
    new_account(database)
    other = opened(database_url)
    assert count(other) == 1
    other.close()


@pytest.mark.parametrize("database_url", ["pgbouncer"], indirect=True)
def test_transactions_of_one_connection_run_on_any_connection_of_a_pooler_again_and_again(database):
    """Far more often than the driver executes a statement before it would prepare it, with more threads than the pooler has connections."""
    owner = new_account(database, 0)
    row = schema.accounts_table.c

    def add() -> set[int]:
        served = set()
        for _ in range(20):
            with database.write() as connection:
                served.add(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
                connection.execute(update(schema.accounts_table).where(row.id == owner).values(available=row.available + 1))
            assert count(database) == 1
        return served

    backends = set().union(*at_once(*[add] * 12))
    with database.read() as connection:
        assert connection.scalar(select(row.available).where(row.id == owner)) == 240
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() == 0
    assert 1 < len(backends) <= 8  # pgbouncer(connections=8)


@pytest.mark.parametrize("database_url", ["postgres", "pgbouncer"], indirect=True)
def test_a_process_opens_no_more_connections_than_its_kind_may(database_url):
    prepares = str(not through_pgbouncer(database_url)).lower()
    settings = load_settings({"DATABASE_URL": database_url, "DATABASE_CONNECTIONS": "3", "DATABASE_PREPARES": prepares})
    for opener, most in (
        ("web", 3),
        ("worker", 3),
        ("supervisor", CONNECTIONS["supervisor"]),
        ("command", CONNECTIONS["command"]),
    ):
        opened_one = open_database(settings, opener)
        pool = opened_one.engine.pool
        assert pool.size() + pool._max_overflow == most
        opened_one.close()
    unsaid = open_database(settings.model_copy(update={"database_connections": 0}), "web")
    held = [unsaid.engine.connect() for _ in range(CONNECTIONS["web"])]
    assert unsaid.engine.pool.checkedout() == CONNECTIONS["web"]
    unsaid.engine.pool._timeout = 0
    with pytest.raises(NoConnectionFree), unsaid.read():
        pass
    for connection in held:
        connection.close()
    unsaid.close()


# Migrations


def test_an_empty_database_is_not_current_and_a_migrated_one_is(empty):
    assert not schema_is_current(empty)
    migrate(empty)
    assert schema_is_current(empty)


def test_the_newest_migration_s_file_names_what_alembic_takes_for_the_head():
    assert newest_revision() == ScriptDirectory.from_config(_alembic_config()).get_current_head()


def test_what_a_newer_version_has_migrated_is_left_alone(database):
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrate(database)
    assert not schema_is_current(database)
    with database.read() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_a_schema_serves_the_version_that_made_it_and_those_before_it(empty):
    assert not schema_serves(empty)
    config = _alembic_config()
    with empty.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    assert not schema_serves(empty)
    migrate(empty)
    assert schema_serves(empty)
    with empty.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert schema_serves(empty)


def test_a_migration_only_adds_so_that_processes_of_the_version_before_go_on():
    script = ScriptDirectory.from_config(_alembic_config())
    upgrades = {each.revision: inspect_source(each.module.upgrade) for each in script.walk_revisions()}
    assert newest_revision() in upgrades
    taken = {
        revision: re.findall(r"drop_(?!index)\w+|alter_column|rename_\w+|\bDROP (?!INDEX)|\bRENAME\b", text)
        for revision, text in upgrades.items()
    }
    assert {revision: found for revision, found in taken.items() if found} == {}


def test_migrating_again_changes_nothing(database):
    owner = new_account(database)
    migrate(database)
    assert schema_is_current(database)
    with database.read() as connection:
        assert connection.scalar(select(schema.accounts_table.c.id)) == owner


def test_two_processes_may_migrate_at_once(empty, database_url):
    command_line = [
        sys.executable,
        "-W",
        "error",
        "-c",
        MIGRATE,
        database_url,
        "" if through_pgbouncer(database_url) else "prepares",
    ]
    started = [
        subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in started] == ["ready\n"] * 2
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in started]
    assert [(out, process.returncode) for (out, _), process in zip(ended, started, strict=True)] == [("done\n", 0)] * 2, ended
    assert schema_is_current(empty)


def test_a_sqlite_file_that_another_process_is_making_is_waited_for(tmp_path):
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # now SQLite refuses a change of the journal's mode at once, without its own wait
    database, asked = Database(f"sqlite:///{path}"), []

    def count(statement: str) -> None:
        asked.append(statement)
        if asked.count("PRAGMA journal_mode=WAL") == 3:  # refused twice, so the other is done
            other.execute("COMMIT")

    event.listen(database.engine, "connect", lambda connection, _record: connection.set_trace_callback(count), insert=True)
    migrate(database)
    assert schema_is_current(database)
    database.close()
    other.close()


def test_many_threads_may_open_and_migrate_one_database_at_once(database_url):
    def start() -> bool:
        made = opened(database_url)
        migrate(made)
        made.close()
        return True

    assert at_once(*[start] * 6) == [True] * 6


def test_the_migrations_make_exactly_the_schema(database):
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_migrations_make_the_schema_s_own_statements(database, tmp_path):
    """What autogenerate does not compare: partial indexes, defaults, ON DELETE."""
    if database.engine.dialect.name != "sqlite":
        pytest.skip("SQLite alone keeps the statements")
    direct = Database(f"sqlite:///{tmp_path / 'direct.db'}")
    with direct.write() as connection:
        schema.metadata.create_all(connection)
    query = text(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT IN ('alembic_version', 'sqlite_sequence')"
    )
    made: list[dict[str, list[str]]] = []
    for each in (database, direct):
        with each.read() as connection:
            made.append({name: sorted(_parts(sql)) for name, sql in connection.execute(query)})
    direct.close()
    assert made[0] == made[1]


def _parts(sql: str) -> list[str]:
    """What stands between the commas of a statement: a column that was added later stands on another's line."""
    plain = " ".join(sql.replace('"', "").split()).removesuffix(")")
    head, _, rest = plain.partition("(")
    return [head.strip(), *(part.strip() for part in re.split(r",(?![^(]*\))", rest))]


def test_a_downgrade_takes_everything_away_and_an_upgrade_brings_it_back(database):
    new_account(database)
    config = _alembic_config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert not schema_is_current(database)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    migrate(database)
    assert schema_is_current(database)
    assert count(database) == 0


def test_a_database_that_the_first_revision_made_is_brought_to_the_newest_and_keeps_its_rows(empty):
    """What is released is migrated forward. The row is written in SQL, by the columns that the first revision has."""
    config = _alembic_config()
    with empty.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO accounts (id, name, available, held, charged, created_at) VALUES ('acc_1', 'test', 7, 0, 0, 1)")
        )
    migrate(empty)
    assert schema_is_current(empty)
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        assert connection.execute(text("SELECT id, available FROM accounts")).all() == [("acc_1", 7)]


def test_a_migration_counts_the_open_jobs_and_the_scratch_of_the_jobs_that_are_there(empty):
    config = _alembic_config()
    columns = (
        "id, account, round, status, waited, input_method, prompt, options, total, fail_on_error, engine, model, created_at, "
        "finished_at, deadline_at, deadline_ms, ttl_ms, warnings, credits, scratch_bytes, keep_ms, input_bytes, inputs_expire_at, "
        "spent_money"
    )
    open_, kept, over = ("NULL", 9, "NULL"), ("1", 9, "99"), ("1", 9, "NULL")
    rows = ", ".join(
        f"('job_{place}', 'acc_1', 1, 's', false, 'base64', 'p', '{{}}', 1, false, 'e', 'm', 1, "
        f"{finished}, 1, 1, 1, '[]', 0, 500, {keep}, 70, {expires}, 0)"
        for place, (finished, keep, expires) in enumerate([open_, open_, kept, over])
    )
    with empty.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for account in ("acc_1", "acc_2"):
            values = f"('{account}', 'test', 7, 0, 0, 1)"
            connection.execute(text(f"INSERT INTO accounts (id, name, available, held, charged, created_at) VALUES {values}"))
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES {rows}"))
    migrate(empty)
    with empty.read() as connection:
        assert totals.check(connection) == totals.Wrong(accounts=[], scratch=0)
        assert totals.in_scratch(connection) == 2 * 500 + 70
        counted = connection.execute(text("SELECT id, open_jobs, kept_bytes FROM accounts ORDER BY id")).all()
    assert counted == [("acc_1", 2, 3 * 70), ("acc_2", 0, 0)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_lock_that_stays_taken_is_a_trouble_that_passes(database, monkeypatch):
    monkeypatch.setattr("storage.database.BUSY_TIMEOUT_MS", 50)
    other = sqlite3.connect(database.engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Transient), database.write():
            pass
    finally:
        other.execute("ROLLBACK")
        other.close()
    with database.write():
        pass
