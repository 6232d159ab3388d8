"""`extract-image doctor`: what is wrong is named with what mends it, whatever else is wrong, and no secret is told."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner
from redis import Redis

from cli.doctor import CHECKS, PROCESSES, Finding, doctor, examine
from cli.main import main
from cli.starting import say_protection
from config.settings import load_settings
from storage.account.accounts import random_id
from storage.database import Database, migrate
from storage.redis.embedded import EmbeddedRedis
from testbed import PostgresServer, S3Server
from tests.fakes.gemini import FakeGemini
from tests.fakes.odd_s3 import Answer, odd_s3
from tests.fakes.openai import FakeOpenAI
from workers.alive import touch

PATIENCE = 60.0  #: seconds: a busy machine is no fault of a part's
SECRET = "hunter2-" + random_id("", 12)


@pytest.fixture
def fake() -> Iterator[FakeGemini]:
    with FakeGemini(key=SECRET) as server:
        yield server


@pytest.fixture
def healthy(tmp_path: Path, redis_url: str, fake: FakeGemini) -> dict[str, str]:
    """The environment of a service in which all is well."""
    database = Database(f"sqlite:///{tmp_path / 'doctor.db'}")
    migrate(database)
    database.close()
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'doctor.db'}",
        "SCRATCH_URL": f"file:{tmp_path / 'scratch'}",
        "REDIS_URL": redis_url,
        "GEMINI_API_KEY": fake.key,
        "GEMINI_BASE_URL": fake.base_url,
    }


@pytest.fixture
def dead_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def wrong(environ: dict[str, str], *, seconds: float = PATIENCE, **options: Any) -> dict[str, Finding]:
    """The checks that did not end well. A warning, that the tests run as root, is well."""
    found = examine(environ, seconds=seconds, **options)
    return {finding.check: finding for finding in found if finding.state not in {"ok", "warning"}}


PRODUCTION = {
    "ENV": "production",
    "SECRET_KEY": "s" * 32,
    "DATABASE_URL": "postgresql+psycopg://u:p@db/d",
    "REDIS_URL": "redis://redis:6379/0",
    "SCRATCH_URL": "s3://bucket/prefix",
    "ENGINE": "ocr",
}
EVERYWHERE = [name for name in CHECKS if name not in PROCESSES]


def test_where_all_is_well_every_check_says_so_and_the_exit_code_is_0(healthy, capsys):
    assert doctor(healthy, as_json=True, seconds=PATIENCE) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    assert [check["check"] for check in answer["checks"]] == ["settings", *EVERYWHERE]
    checks = [check for check in answer["checks"] if check["check"] not in {"user", "sandbox"}]
    assert {(check["state"], check["todo"]) for check in checks} == {("ok", "")}


@pytest.mark.parametrize(
    ("uid", "allowed", "state"), [(0, "", "fault"), (0, "1", "warning"), (10_001, "", "ok")], ids=["root", "allowed", "user"]
)
def test_root_is_a_fault_in_production_unless_it_is_allowed(uid, allowed, state, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: uid)
    environ = {**PRODUCTION, "ALLOW_ROOT": allowed}
    found = {finding.check: finding for finding in examine(environ, only=["user"], seconds=PATIENCE)}
    assert found["user"].state == state
    settings = load_settings(environ)
    if state == "fault":
        with pytest.raises(ClickException, match="ALLOW_ROOT"):
            say_protection(settings, decodes=False)
    else:
        say_protection(settings, decodes=False)


def test_a_system_without_a_complete_sandbox_is_a_warning_that_names_what_it_lacks(healthy, monkeypatch):
    monkeypatch.setattr("pipeline.sandbox.landlock.version", lambda: 0)
    [_, finding] = examine(healthy, only=["sandbox"], seconds=PATIENCE)
    assert (finding.state, "lacks Landlock" in finding.found) == ("warning", True)
    assert doctor(healthy, only=["sandbox"], as_json=True, seconds=PATIENCE) == 0


def test_production_s_parts_are_well(postgres_server: PostgresServer, s3: S3Server, redis_url: str, fake: FakeGemini) -> None:
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        database.close()
        environ = {
            **s3.environment("doctor"),
            "ENV": "production",
            "ALLOW_ROOT": "1",
            "SECRET_KEY": "s" * 32,
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "GEMINI_API_KEY": fake.key,
            "GEMINI_BASE_URL": fake.base_url,
        }
        assert wrong(environ) == {}


def test_the_embedded_service_is_well_before_its_first_start_but_for_its_migration(tmp_path):
    found = wrong({"DATA_DIR": str(tmp_path / "var")})
    assert list(found) == ["database"]
    assert "extract-image migrate" in found["database"].todo


def test_settings_that_cannot_be_used_are_all_named_and_nothing_else_is_tried(capsys):
    assert doctor({"ENV": "production", "PORT": "x"}, as_json=True, seconds=PATIENCE) == 1
    settings, *others = json.loads(capsys.readouterr().out)["checks"]
    assert settings["state"] == "fault"
    for name in ("DATABASE_URL", "SCRATCH_URL", "REDIS_URL", "SECRET_KEY", "ENGINE", "PORT"):
        assert f"{name}: " in settings["found"]
    assert {check["state"] for check in others} == {"skipped"}


def test_a_database_that_is_away_is_named_and_the_others_are_still_looked_at(healthy, dead_port):
    healthy["DATABASE_URL"] = f"postgresql+psycopg://user:{SECRET}@127.0.0.1:{dead_port}/name"
    found = wrong(healthy)
    assert list(found) == ["database", "clock"]
    assert "DATABASE_URL" in found["database"].todo
    assert "database" in found["clock"].todo


def test_a_file_that_is_no_database_is_named(healthy, tmp_path):
    (tmp_path / "text").write_text("this is no database, however long it may be\n" * 100)
    assert "database" in wrong({**healthy, "DATABASE_URL": f"sqlite:///{tmp_path / 'text'}"})


def test_a_database_without_this_version_s_schema_is_told_to_migrate(healthy, tmp_path):
    found = wrong({**healthy, "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.db'}"})
    assert list(found) == ["database"]
    assert found["database"].todo == "Run `extract-image migrate`."


@pytest.mark.parametrize("off", [60.0, -60.0])
def test_a_clock_that_is_not_the_database_s_is_named_with_how_far_it_is_off(healthy, off):
    found = wrong(healthy, now=lambda: time.time() + off)
    assert list(found) == ["clock"]
    assert ("ahead of" if off > 0 else "behind") in found["clock"].found
    assert re.search(r"\b(59|60|61)\.\d s", found["clock"].found)
    assert "NTP" in found["clock"].todo


def test_a_redis_that_is_away_is_named(healthy, dead_port):
    found = wrong({**healthy, "REDIS_URL": f"redis://:{SECRET}@127.0.0.1:{dead_port}/0"})
    assert list(found) == ["redis"]
    assert "REDIS_URL" in found["redis"].todo


def test_a_redis_that_does_not_answer_is_given_up(healthy, silent_port):
    found = wrong({**healthy, "REDIS_URL": f"redis://127.0.0.1:{silent_port}/0"}, only=["redis"], seconds=0.2)
    assert found["redis"].found == "no answer within 0.2 s"
    assert "REDIS_URL" in found["redis"].todo


def test_a_redis_that_evicts_is_told_not_to(healthy, tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as redis, Redis.from_url(redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        found = wrong({**healthy, "REDIS_URL": redis.url})
        assert list(found) == ["redis"]
        assert "allkeys-lru" in found["redis"].found
        assert "noeviction" in found["redis"].todo


def test_a_redis_that_keeps_its_policy_to_itself_is_well(healthy, tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as redis, Redis.from_url(redis.url) as client:
        client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-config"])
        [_, finding] = examine({**healthy, "REDIS_URL": redis.url}, only=["redis"], seconds=PATIENCE)
        assert finding.state == "ok"
        assert "can't be asked" in finding.found


def test_a_folder_that_cannot_be_written_to_is_named(healthy, tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = wrong({**healthy, "SCRATCH_URL": f"file:{tmp_path / 'file'}"})
    assert list(found) == ["scratch"]
    assert "SCRATCH_URL" in found["scratch"].todo


def test_an_s3_server_that_is_away_is_named(healthy, dead_port):
    there = {"SCRATCH_URL": "s3://bucket/prefix", "S3_ENDPOINT_URL": f"http://127.0.0.1:{dead_port}"}
    keys = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    found = wrong({**healthy, **there, **keys}, only=["scratch"])
    assert "S3_ENDPOINT_URL" in found["scratch"].found
    assert "S3_ENDPOINT_URL" in found["scratch"].todo


def test_a_bucket_that_is_not_there_is_named(healthy, s3):
    environ = {**healthy, **s3.environment("doctor"), "SCRATCH_URL": "s3://nobody-made-it/doctor"}
    assert "There is no bucket nobody-made-it" in wrong(environ)["scratch"].found


def test_nothing_is_left_in_scratch(healthy, tmp_path):
    assert wrong(healthy, only=["scratch"]) == {}
    assert list((tmp_path / "scratch").rglob("*")) == []


@pytest.mark.parametrize(
    ("name", "value", "todo"), [("GEMINI_API_KEY", "another-key", "GEMINI_API_KEY"), ("MODEL", "gemini-1.0-gone", "MODEL")]
)
def test_a_wrong_key_and_a_wrong_model_are_told_apart(healthy, name, value, todo):
    found = wrong({**healthy, name: value})
    assert list(found) == ["engine"]
    assert found["engine"].todo.startswith(f"Look at {todo}:")


def test_a_model_server_that_is_away_is_named(healthy, dead_port):
    found = wrong({**healthy, "GEMINI_BASE_URL": f"http://127.0.0.1:{dead_port}"})
    assert list(found) == ["engine"]
    assert "GEMINI_BASE_URL" in found["engine"].todo


@pytest.mark.parametrize(("status", "todo"), [(429, "Try again later"), (403, "Look at GEMINI_API_KEY")])
def test_what_to_do_about_a_model_server_depends_on_the_status_that_it_answers_with(healthy, status, todo):
    body = json.dumps({"error": {"code": status, "message": "said by the server", "status": "ANY"}}).encode()
    with odd_s3(lambda _: Answer(status=status, body=body, kind="application/json")) as server:
        found = wrong({**healthy, "GEMINI_BASE_URL": f"http://127.0.0.1:{server.port}"}, only=["engine"])
    assert found["engine"].todo.startswith(todo)


def test_asking_about_the_model_makes_no_model_call(healthy, fake):
    assert wrong(healthy, only=["engine"]) == {}
    assert fake.calls == []


def test_the_ocr_engine_is_well_where_its_packages_are_installed(healthy):
    [_, finding] = examine({**healthy, "ENGINE": "ocr"}, only=["engine"], seconds=PATIENCE)
    assert (finding.state, finding.found[:3]) == ("ok", "ocr")


def test_a_disk_without_room_for_large_bodies_is_named(healthy):
    found = wrong({**healthy, "MAX_BODY": str(1 << 60)})
    assert list(found) == ["disk"]
    assert "TMPDIR" in found["disk"].todo


def test_everything_wrong_at_once_is_one_line_each(healthy, dead_port):
    away = f"127.0.0.1:{dead_port}"
    environ = {
        **healthy,
        "DATABASE_URL": f"postgresql+psycopg://user:{SECRET}@{away}/name",
        "REDIS_URL": f"redis://:{SECRET}@{away}/0",
        "SCRATCH_URL": "file:/dev/null",
        "GEMINI_BASE_URL": f"http://{away}",
        "MAX_BODY": str(1 << 60),
    }
    found = wrong(environ)
    assert list(found) == [name for name in EVERYWHERE if name not in {"user", "sandbox"}], "those two know of no fault here"
    assert all(finding.found and finding.todo and "\n" not in finding.found for finding in found.values())


def test_no_secret_is_printed_whether_all_is_well_or_nothing(healthy, dead_port):
    away = f"127.0.0.1:{dead_port}"
    broken = {
        **healthy,
        "DATABASE_URL": f"postgresql+psycopg://user:{SECRET}@{away}/name?nonsense={SECRET}",
        "REDIS_URL": f"redis://:{SECRET}@{away}/{SECRET}",
        "GEMINI_BASE_URL": f"http://{away}",
        "SECRET_KEY": SECRET,
    }
    for environ in (healthy, broken, {**broken, "PORT": SECRET, "ENV": SECRET}):
        for arguments in (["doctor"], ["doctor", "--json"]):
            ran = CliRunner().invoke(main, arguments, env={**environ, "COLUMNS": "400"})
            assert environ is healthy or ran.exit_code == 1, ran.output
            assert SECRET not in ran.output


def test_the_table_says_what_to_do_beside_what_was_found(healthy, dead_port, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert doctor({**healthy, "REDIS_URL": f"redis://127.0.0.1:{dead_port}/0"}, as_json=False, seconds=PATIENCE) == 1
    [row] = [line for line in capsys.readouterr().out.splitlines() if "redis" in line and "fault" in line]
    assert "Connection refused" in row
    assert "Look at REDIS_URL" in row


def test_a_check_that_does_not_exist_is_refused_with_those_that_do():
    ran = CliRunner().invoke(main, ["doctor", "--only", "weather"])
    assert ran.exit_code == 1
    assert all(name in ran.output for name in CHECKS)


@pytest.mark.parametrize("role", PROCESSES)
def test_a_process_is_well_as_long_as_it_says_so(healthy, tmp_path, role):
    environ = {**healthy, "DATA_DIR": str(tmp_path)}
    assert role in wrong(environ, only=[role])
    touch(tmp_path, role)
    assert wrong(environ, only=[role]) == {}
    long_ago = time.time() - 60
    os.utime(tmp_path / f"{role}.alive", (long_ago, long_ago))
    assert "silent" in wrong(environ, only=[role])[role].found


def test_an_openai_compatible_server_is_asked_for_its_models(healthy, dead_port):
    with FakeOpenAI() as server:
        environ = {
            **healthy,
            "ENGINE": "openai",
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": server.key,
            "MODEL": server.models[0],
        }
        assert wrong(environ, only=["engine"]) == {}
        for name, value in (
            ("OPENAI_API_KEY", "another-key"),
            ("MODEL", "gone"),
            ("OPENAI_BASE_URL", f"http://127.0.0.1:{dead_port}/v1"),
        ):
            found = wrong({**environ, name: value}, only=["engine"])["engine"]
            assert found.todo.startswith(f"Look at {name}")
            assert "another-key" not in found.found
        assert server.calls == []
