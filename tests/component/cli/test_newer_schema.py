"""A database that a newer version has migrated: the commands of this version work on it, so that its processes may go back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from sqlalchemy import text

from storage.database import Database, migrate
from testbed import ROOT, environment, serving


@pytest.fixture
def folder(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'extract-image.db'}")
    migrate(database)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    return tmp_path


def run(folder, *command):
    started = [sys.executable, "-m", "cli.main", *command]  # by itself: these commands configure the process's log
    done = subprocess.run(started, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_migrate_leaves_the_schema_as_it_is_and_says_so(folder):
    assert run(folder, "migrate") == "The schema is a newer version's, which serves this one too.\n"


def test_keys_can_be_made_and_listed(folder):
    run(folder, "keys", "create", "shop", "--credits", "5")
    assert [key["available"] for key in json.loads(run(folder, "keys", "list", "--json"))] == [5]


def test_serve_serves(folder):
    with serving(folder, ENGINE="ocr") as service:
        assert service.send("GET", "/readyz")[0] == 200
