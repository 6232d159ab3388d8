"""A command that can't work says why in a line or two and what to do, and prints no traceback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import cli.logs
from cli.main import main
from cli.starting import _missing
from config.settings import load_settings
from storage.database import Database

AWAY = "postgresql+psycopg://user:secret-word@127.0.0.1:9/name"
COMMANDS = ["migrate", "keys list", "keys create a", "keys revoke a", "credits grant a 1", "webhooks secret show a"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(command: str, **settings: str):
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cli.logs, "configure_logs", lambda **_: None)
        return CliRunner().invoke(main, command.split())

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_is_away_is_told_in_two_lines(run, command):
    told = run(command, DATABASE_URL=AWAY)
    assert told.exit_code == 1
    assert told.exception is None or isinstance(told.exception, SystemExit)
    assert len(told.output.strip().splitlines()) <= 2
    assert "DATABASE_URL" in told.output
    assert "secret-word" not in told.output


def test_a_folder_that_is_none_and_a_url_that_is_none_are_told_too(run, tmp_path):
    (tmp_path / "file").write_text("")
    for settings in ({"DATA_DIR": str(tmp_path / "file")}, {"DATABASE_URL": "postgresql+psycopg://user:pw@host:no/x"}):
        told = run("keys list", **settings)
        assert told.exit_code == 1
        assert "Traceback" not in told.output
        assert isinstance(told.exception, SystemExit)
        assert "DATA" in told.output


def test_a_process_says_of_each_part_that_is_missing_what_to_do(tmp_path):
    settings = load_settings({"DATABASE_URL": AWAY, "REDIS_URL": "redis://:secret-word@127.0.0.1:9/0", "DATA_DIR": str(tmp_path)})
    database, redis = _missing(settings)
    assert "127.0.0.1:9" in database
    assert "DATABASE_URL" in database
    assert "REDIS_URL" in redis
    assert "secret-word" not in database + redis
    empty = load_settings({"DATA_DIR": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:9/0"})
    Database(empty.database_url).close()
    assert "extract-image migrate" in _missing(empty)[0]
