"""`extract-image check`: a table for people, JSON for programs, and a code that says whether the books are right."""

from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from cli.main import main
from storage import schema
from storage.account.accounts import random_id
from storage.books.table import CHECKS
from storage.database import Database, migrate
from storage.scratch.open import open_scratch
from testbed import PostgresServer, S3Server
from tests.rows import new_account, new_job


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a service with an open job."""
    (tmp_path / "scratch").mkdir()
    return prepared({"DATA_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path / 'books.db'}"})


def prepared(environment: dict[str, str]) -> dict[str, str]:
    with closing(Database(environment["DATABASE_URL"])) as database:
        migrate(database)
        new_job(database, new_account(database))
    return environment


def spoil(environment: dict[str, str]) -> None:
    with closing(Database(environment["DATABASE_URL"])) as database, database.write() as connection:
        connection.execute(update(schema.accounts_table).values(charged=7))


def run(environment: dict[str, str], *arguments: str) -> Result:
    empty = dict.fromkeys(("DATABASE_URL", "SCRATCH_URL", "REDIS_URL", "ENGINE", "ENV"), "")
    return CliRunner().invoke(main, ["check", *arguments], env={**empty, "COLUMNS": "200", **environment})


def as_json(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(environment, "--json", *arguments).stdout)
    return found


def test_where_all_is_well_each_check_says_what_holds_and_the_code_is_0(environment):
    done = run(environment)
    assert done.exit_code == 0, done.output
    for name, about in CHECKS.items():
        assert about.holds in done.stdout
        assert name in done.stdout
    assert "wrong" not in done.stdout


def test_what_it_does_meanwhile_stands_on_standard_error_only(environment):
    done = run(environment)
    assert "checking ledger" in done.stderr
    assert "checking orphans" in done.stderr
    assert "checking" not in done.stdout


def test_a_finding_is_shown_with_what_to_do_and_the_code_is_1(environment):
    spoil(environment)
    done = run(environment)
    assert done.exit_code == 1
    assert "charged 7; by the ledger: available 99989, held 11, charged 0" in done.stdout
    assert CHECKS["ledger"].todo in done.stdout


def test_programs_get_every_check_with_its_numbers(environment):
    spoil(environment)
    found = as_json(environment)
    assert found["ok"] is False
    assert [check["check"] for check in found["checks"]] == list(CHECKS)
    assert set(found["checks"][0]) == {"check", "looked_at", "found", "in_flight", "examples", "holds", "todo"}
    assert {check["check"]: check["found"] for check in found["checks"] if check["found"]} == {"ledger": 1}


def test_a_single_check_can_be_run(environment):
    spoil(environment)
    assert [check["check"] for check in as_json(environment, "--only", "leases")["checks"]] == ["leases"]
    assert run(environment, "--only", "leases", "--only", "holds").exit_code == 0
    assert run(environment, "--only", "ledger").exit_code == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"DATABASE_URL": "sqlite:////nowhere/at/all.db"}, "There is no database /nowhere/at/all.db"),
        ({"SCRATCH_URL": "file:/nowhere/at/all"}, "There is no folder /nowhere/at/all"),
        ({"DATABASE_URL": "postgresql+psycopg://u:p-secret@127.0.0.1:9/x"}, "127.0.0.1"),
        ({"DATABASE_URL": "mysql://x"}, "must start with"),
    ],
)
def test_where_it_can_t_look_it_says_so_and_the_code_is_2(environment, changed, said):
    done = run({**environment, **changed})
    assert done.exit_code == 2
    assert said in done.stderr
    assert "p-secret" not in done.output
    assert not Path("/nowhere").exists()


def test_an_unknown_check_is_named_with_those_that_there_are(environment):
    done = run(environment, "--only", "nothing")
    assert done.exit_code == 2
    assert all(name in done.stderr for name in CHECKS)


def test_a_database_that_was_never_migrated_can_t_be_checked(environment, tmp_path):
    (tmp_path / "empty.db").touch()
    done = run({**environment, "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.db'}"})
    assert (done.exit_code, "extract-image migrate" in done.stderr) == (2, True)


def test_it_checks_postgres_and_a_bucket_of_s3(postgres_server: PostgresServer, s3: S3Server):
    prefix = random_id("scratch_", 8)
    with postgres_server.database() as url:
        environment = prepared({**s3.environment(prefix), "DATABASE_URL": url})
        open_scratch(s3.settings(prefix)).put("job_being_accepted/in-c0", io.BytesIO(b"x"))
        found = as_json(environment)
    assert found["ok"] is True
    [orphans] = [check for check in found["checks"] if check["check"] == "orphans"]
    assert (orphans["looked_at"], orphans["in_flight"]) == (1, 1)
