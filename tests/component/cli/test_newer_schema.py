"""A database that a newer version has migrated: said in one line, by whatever command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import text

from storage.database import Database, migrate
from testbed import ROOT, environment


@pytest.mark.parametrize("command", [["migrate"], ["keys", "list"], ["serve"]])
def test_a_command_on_a_newer_database_says_what_to_do(tmp_path, command):
    database = Database(f"sqlite:///{tmp_path / 'extract-image.db'}")
    migrate(database)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    started = [sys.executable, "-m", "cli.main", *command]  # by itself: these commands configure the process's log
    done = subprocess.run(started, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: The database's schema is 9999")
    assert "use the newer version" in done.stderr
