"""`extract-image migrate`: what a released version has made is brought to this version's schema."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

from alembic import command
from sqlalchemy import text

from storage.database import Database, _alembic_config, schema_is_current
from testbed import ROOT, environment

#: By the columns that the first revision has.
ACCOUNT = "INSERT INTO accounts (id, name, available, held, charged, created_at) VALUES ('acc_1', 'test', 7, 0, 0, 1)"


def test_the_command_brings_a_database_of_the_first_revision_to_this_version_s_schema_and_keeps_its_accounts(tmp_path):
    with closing(Database(f"sqlite:///{tmp_path / 'extract-image.db'}")) as database:
        config = _alembic_config()
        with database.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
            connection.execute(text(ACCOUNT))
        started = [sys.executable, "-m", "cli.main", "migrate"]  # by itself: it configures the process's log
        subprocess.run(started, cwd=ROOT, env=environment(tmp_path), timeout=60, check=True, capture_output=True)
        assert schema_is_current(database)
        with database.read() as connection:
            assert connection.scalars(text("SELECT id FROM accounts")).all() == ["acc_1"]
