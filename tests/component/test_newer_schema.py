"""A database that a newer version has migrated: said in one line, by whatever command."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from cli.main import main
from storage.database import Database, migrate


@pytest.mark.parametrize("command", [["migrate"], ["keys", "list"], ["serve"]])
def test_a_command_on_a_newer_database_says_what_to_do(tmp_path, command):
    database = Database(f"sqlite:///{tmp_path / 'extract-image.db'}")
    migrate(database)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    done = CliRunner().invoke(main, command, env={"DATA_DIR": str(tmp_path), "PORT": "0"})
    assert done.exit_code == 1
    assert done.output.startswith("Error: The database's schema is 9999")
    assert "use the newer version" in done.output
