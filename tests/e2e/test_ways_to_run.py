"""Ways to run the processes: by honcho from the Procfile, and with PgBouncer before Postgres."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import Pooler, PostgresServer, Production, S3Server, Service
from testbed.production import free_port
from testbed.service import ROOT, environment

pytestmark = pytest.mark.slow
PICTURE = (ROOT / "examples" / "09-ferry-banner.gif").read_bytes()


@pytest.fixture
def parts(postgres_server: PostgresServer, redis_url: str, s3: S3Server) -> Iterator[dict[str, str]]:
    """Settings with a Postgres, a Valkey and a SeaweedFS."""
    with postgres_server.database() as url:
        yield {
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "SCRATCH_URL": f"s3://{s3.bucket}/ways",
            "S3_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.key_id,
            "AWS_SECRET_ACCESS_KEY": s3.secret,
            "SECRET_KEY": "k" * 32,
            "ENGINE": "ocr",
        }


def reads(service: Service) -> None:
    body = {"inputMethod": "base64", "images": [base64.b64encode(PICTURE).decode()], "prompt": "Read it."}
    status, _, answer = service.extract(body)
    assert (status, "NORDKAI" in str(answer)) == (200, True), answer


@pytest.mark.xdist_group("ocr")
def test_honcho_runs_the_procfile(parts: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    given = {**environment(tmp_path / "data", **parts), "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    given["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "cli.main"]
    subprocess.run([*command, "migrate"], cwd=ROOT, env=given, check=True, capture_output=True)
    made = subprocess.run(
        [*command, "keys", "create", "a", "--credits", "99", "--json"], cwd=ROOT, env=given, check=True, capture_output=True
    )
    log = tmp_path / "honcho.log"
    with log.open("wb") as out:
        honcho = [sys.executable, "-m", "honcho", "-f", str(ROOT / "Procfile"), "-d", str(ROOT), "start"]
        process = subprocess.Popen(honcho, env=given, stdout=out, stderr=out, start_new_session=True)
    try:
        service = Service(tmp_path / "data", process, f"http://127.0.0.1:{port}", json.loads(made.stdout)["key"])  # type: ignore[arg-type]

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return service.send("GET", "/readyz")[0] == 200
            except (OSError, ValueError):
                return False

        service.wait_for(ready, 120)
        reads(service)
        named = {line.partition(": ")[0] for line in (ROOT / "Procfile").read_text().splitlines()}
        assert named == set(re.findall(r"(\w+)\.1 +\|", re.sub(r"\x1b\[[\d;]*m", "", log.read_text()))) & named
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.xdist_group("ocr")
def test_web_worker_and_supervisor_work_through_pgbouncer_with_two_connections_each(
    parts: dict[str, str], pooler: Pooler, tmp_path: Path
) -> None:
    through = {
        **parts,
        "DATABASE_URL": pooler.url(parts["DATABASE_URL"]),
        "DATABASE_PREPARES": "false",
        "DATABASE_CONNECTIONS": "2",
    }
    running = Production(tmp_path / "house", through)
    try:
        running.run("migrate")
        key = running.new_key()
        for name in ("supervisor-1", "worker-1", "web-1"):
            running.start(name)
        service = running.client("web-1", key)
        for _ in range(10):  # more often than the driver executes a statement before it would prepare it
            reads(service)
        for log in ("web-1", "worker-1", "supervisor-1"):
            assert "prepared statement" not in running.log(log)
            assert "NoConnectionFree" not in running.log(log)
    finally:
        running.end()
