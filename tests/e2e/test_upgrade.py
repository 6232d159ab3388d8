"""The commands of docs/how-to/upgrade.md: processes of the version before and of this one are replaced one by one, under load."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from storage.database import Database, newest_revision
from testbed import ROOT, PictureServer, Production, eventually, pictures, production
from tests import books
from tests.e2e.pages import commands, paste
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.torture.revision import tree_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("production"), pytest.mark.timeout(600)]

COMMANDS = commands("docs/how-to/upgrade.md")
WORKERS_FIRST = ("worker-1", "worker-2", "supervisor", "web-1", "web-2")
RETRY_SECONDS = 60.0


def revision_before() -> str:
    """The last git revision whose schema is older than this one's. "": this is no checkout with its history."""
    migration = next(ROOT.glob(f"storage/migrations/versions/{newest_revision()}_*.py")).relative_to(ROOT)
    added = said_by_git("log", "--diff-filter=A", "--format=%H", "--", str(migration))
    return said_by_git("rev-parse", "--verify", f"{added}^") if added else ""


def said_by_git(*arguments: str) -> str:
    """The last line that git prints, "" if it fails."""
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    return lines[-1] if done.returncode == 0 and lines else ""


class Load:
    """Sends small jobs all the time. It asks another web process if one refuses the connection, as a proxy does."""

    def __init__(self, ports: Callable[[], list[int]], key: str, urls: list[str]) -> None:
        self.jobs: list[str] = []
        self.faults: list[str] = []
        self._ports = ports
        self._key = key
        self._urls = urls
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(name,)) for name in ("a", "b")]
        for thread in self._threads:
            thread.start()

    def _send(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            status, answer = self._post(f"{name}{number}")
            if status == 202:
                self.jobs.append(answer["id"])
            elif answer.get("code") == "too_many_open_jobs":
                self._stop.wait(0.1)
            else:
                self.faults.append(f"{name}{number}: {status} {answer}")

    def _post(self, key: str) -> tuple[int, dict[str, str]]:
        """The answer of the first web process that gives one. The idempotency key makes a second try harmless."""
        body = json.dumps({"inputMethod": "url", "images": self._urls, "prompt": "p", "granularity": "perImage"})
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Idempotency-Key": key}
        ends = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < ends:
            for port in self._ports():
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RETRY_SECONDS)
                try:
                    connection.request("POST", "/api/v1/jobs", body, headers)
                    answer = connection.getresponse()
                    return answer.status, json.loads(answer.read())
                except (OSError, http.client.HTTPException):
                    continue
                finally:
                    connection.close()
            time.sleep(0.1)
        return 0, {}

    def count(self) -> int:
        return len(self.jobs)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def before() -> Iterator[Path]:
    """The code of the version before."""
    revision = revision_before()
    if not revision:
        pytest.skip("there is no git history here, so the code of an earlier version can't be had")
    with tree_of(revision) as tree:
        yield tree


@pytest.fixture
def web() -> Iterator[PictureServer]:
    with pictures() as server:
        yield server


def test_the_service_answers_while_it_is_upgraded_and_rolled_back(tmp_path, postgres_server, s3, web, before):
    settings = {"FETCH_ALLOW": web.allow, "LEASE_SECONDS": "4", "WORKER_CONCURRENCY": "4", "RATE_LIMIT": "100000/minute"}
    with (
        FakeGemini(latency=0.05) as fake,
        production(tmp_path, server=postgres_server, s3=s3, fake=fake, names=WORKERS_FIRST, code=before, **settings) as cluster,
        closing(Database(cluster.settings["DATABASE_URL"])) as database,
    ):
        key = cluster.new_key(code=before)
        for name in ("web-1", "web-2"):
            cluster.client(name, key)
        load = Load(lambda: list(cluster.ports.values()), key, [web.page(f"{n}.png", numbered_picture(n)) for n in range(3)])
        try:
            goes_on(load)
            [migrate], [look] = COMMANDS["Upgrade"][:1], COMMANDS["Upgrade"][1:]
            assert revision_of(database) < newest_revision()
            paste(migrate, tmp_path, cluster.settings)
            assert revision_of(database) == newest_revision()
            goes_on(load)  # the version before, on this version's schema
            for name in WORKERS_FIRST:
                replace(cluster, name, key, ROOT, load)
            paste(look, tmp_path, {**cluster.settings, "URL": cluster.client("web-2", key).url, "KEY": key})
            for name in reversed(WORKERS_FIRST):
                replace(cluster, name, key, before, load)
        finally:
            load.end()
        assert load.faults == []
        client = cluster.client("web-1", key)
        ended = [client.follow(f"/api/v1/jobs/{job}") for job in load.jobs]
        assert [job["id"] for job in ended if job["status"] != "succeeded"] == []
        eventually(lambda: not books.faults(database) and not cluster.scratch(), 60)


def goes_on(load: Load, jobs: int = 4) -> None:
    """Waits until so many more jobs were accepted."""
    least = load.count() + jobs
    eventually(lambda: load.count() >= least, 60)


def replace(cluster: Production, name: str, key: str, code: Path, load: Load) -> None:
    """Stops the process and starts it with other code, as the page says."""
    cluster.stop(name)
    cluster.start(name, code)
    if name.startswith("web"):
        cluster.client(name, key)  # waits until it accepts connections
    goes_on(load)


def test_the_commands_of_a_rollback_work_on_the_schema_of_a_later_version(tmp_path, postgres_server, s3):
    with (
        FakeGemini() as fake,
        production(tmp_path, server=postgres_server, s3=s3, fake=fake, names=()) as cluster,
        closing(Database(cluster.settings["DATABASE_URL"])) as database,
    ):
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        [block] = COMMANDS["Roll back"]
        said = paste(block, tmp_path, cluster.settings)
        assert "The schema is a newer version's, which serves this one too." in said
        assert revision_of(database) == "9999"


def revision_of(database: Database) -> str:
    with database.read() as connection:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def test_every_command_of_the_page_is_run_here():
    assert {heading: len(blocks) for heading, blocks in COMMANDS.items()} == {"Upgrade": 2, "Roll back": 1}
