"""The commands of docs/how-to/backup.md, against real servers: a dump while jobs run, and a restore into an empty machine."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from storage.database import Database
from testbed import PictureServer, PostgresServer, Production, eventually, pictures, postgres, seaweedfs, serving, valkey
from tests import books
from tests.e2e.pages import commands, paste
from tests.fakes.gemini import Behaviour, FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import with_number
from tests.torture.receiver import Receiver
from workers.run import LOST

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("production"), pytest.mark.timeout(600)]

PAGE = "docs/how-to/backup.md"
COMMANDS = commands(PAGE)
NAMES = ("supervisor", "worker-1", "worker-2", "web-1")
SECRET_KEY = "the same in the old machine and in the new one"
HELD = range(500, 1000)  #: the model does not answer about these pictures before the old machine is lost
PER_IMAGE = {"prompt": "p", "granularity": "perImage"}


@dataclass(kw_only=True)
class Machine:
    """Servers that belong together, and the service on them."""

    server: PostgresServer
    cluster: Production

    def paste(self, block: str, folder: Path, **more: str) -> str:
        return paste(block, folder, {**self.cluster.settings, **self.server.environment(), **more})


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def web() -> Iterator[PictureServer]:
    with pictures() as server:
        yield server


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


def machine(stack: ExitStack, folder: Path, fake: FakeGemini, web: PictureServer, bucket: str) -> Machine:
    """New servers, on which nothing is yet. The service is not started."""
    server = stack.enter_context(postgres())
    s3 = stack.enter_context(seaweedfs(folder / "s3"))
    settings = {
        "ENV": "production",
        "ALLOW_ROOT": "1",
        "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": server.url("extract_image"),
        "REDIS_URL": stack.enter_context(valkey(folder / "valkey")),
        **replace(s3, bucket=bucket).environment("scratch"),
        "ENGINE": "gemini",
        "GEMINI_API_KEY": fake.key,
        "GEMINI_BASE_URL": fake.base_url,
        "FETCH_ALLOW": web.allow,
        "WEBHOOK_ALLOW": "127.0.0.1/32:*",
        "IMAGES_PER_CALL": "5",
        "LEASE_SECONDS": "4",
        "WORKER_CONCURRENCY": "8",
    }
    cluster = Production(folder, settings)
    stack.callback(cluster.end)
    return Machine(server=server, cluster=cluster)


@dataclass(kw_only=True)
class Before:
    """What the old machine had."""

    key: str
    secret: str  #: of the account's webhooks
    results: dict[str, str] = field(default_factory=dict)  #: job that had ended → its results
    by_url: str = ""  #: an open job whose images were given by URL
    uploaded: str = ""  #: an open job whose images came as base64
    answered: dict[str, set[int]] = field(default_factory=dict)  #: open job → images that had their answer
    after: str = ""  #: a job that was accepted after the dump


@pytest.fixture(scope="module")
def restored(tmp_path_factory, fake, web, receiver) -> Iterator[tuple[Before, Machine, Path]]:
    """The new machine, and what the old one had. The commands are those of the page, in its order."""
    folder = tmp_path_factory.mktemp("restore")
    lost = threading.Event()
    fake.script = with_number(HELD, Behaviour(until=lost))
    with ExitStack() as old:
        first = machine(old, folder / "old", fake, web, "scratch")
        first.server.create("extract_image")
        first.cluster.run("migrate")
        for name in NAMES:
            first.cluster.start(name)
        before = work(first.cluster, fake, web, receiver)
        with under_load(first.cluster, before.key, web):
            [block] = COMMANDS["Back up Postgres"]
            first.paste(block, folder)
        before.after = post(first.cluster, before.key, urls(web, 2000, 1))
        for name in NAMES:  # the machine is lost
            first.cluster.stop(name, signal.SIGKILL)
    lost.set()
    fake.script = None
    fake.sent.clear()
    receiver.got.clear()
    with ExitStack() as new:
        second = machine(new, folder / "new", fake, web, "made-by-the-page")
        fill, ask = COMMANDS["Restore into an empty machine"]
        second.paste(fill, folder)
        assert {f"{before.by_url} is open", f"{before.uploaded} is open"} <= set(faults(second)), "no job was open in the dump"
        for name in NAMES:
            second.cluster.start(name)
        client = second.cluster.client("web-1", before.key)
        assert json.loads(second.paste(ask, folder, URL=client.url, KEY=before.key))["balance"]["available"] > 0
        for job in (before.by_url, before.uploaded):
            client.follow(f"/api/v1/jobs/{job}")
        yield before, second, folder


def faults(of: Machine) -> list[str]:
    database = Database(of.cluster.settings["DATABASE_URL"])
    try:
        return books.faults(database)
    finally:
        database.close()


def work(cluster: Production, fake: FakeGemini, web: PictureServer, receiver: Receiver) -> Before:
    """Ends two jobs, and brings two others to the middle of their work."""
    made = json.loads(cluster.run("keys", "create", "test", "--credits", "100000", "--json"))
    [secret] = json.loads(cluster.run("webhooks", "secret", "show", made["account"], "--json"))["secrets"]
    before = Before(key=made["key"], secret=secret)
    client = cluster.client("web-1", before.key)
    hook = {"webhookUrl": f"http://127.0.0.1:{receiver.server_port}/hook"}
    for images in (urls(web, 0, 7), uploads(20, 7)):
        job = post(cluster, before.key, images)
        client.follow(f"/api/v1/jobs/{job}")
        before.results[job] = client.send("GET", f"/api/v1/jobs/{job}/results")[2]["results"]
    # The model answers about the first ten of each, and the others wait for it.
    before.by_url = post(cluster, before.key, urls(web, 490, 30), **hook)
    before.uploaded = post(cluster, before.key, uploads(100, 10) + uploads(600, 20), **hook)
    open_jobs = (before.by_url, before.uploaded)

    def done(job: str) -> set[int]:
        return {item["index"] for item in items(cluster, before.key, job) if item["status"] == "succeeded"}

    eventually(lambda: all(len(done(job)) == 10 for job in open_jobs), 60)
    before.answered = {job: done(job) for job in open_jobs}
    return before


@contextmanager
def under_load(cluster: Production, key: str, web: PictureServer) -> Iterator[None]:
    """Sends small jobs while the block runs. Each of them must succeed."""
    client, images, stop = cluster.client("web-1", key), urls(web, 3000, 5), threading.Event()
    statuses: list[int] = []

    def send() -> None:
        while not stop.is_set():
            statuses.append(client.extract({"inputMethod": "url", "images": images, **PER_IMAGE})[0])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert set(statuses) == {200}


def urls(web: PictureServer, first: int, count: int) -> list[str]:
    return [web.page(f"{n}.png", numbered_picture(n)) for n in range(first, first + count)]


def uploads(first: int, count: int) -> list[str]:
    return [base64.b64encode(numbered_picture(n)).decode() for n in range(first, first + count)]


def post(cluster: Production, key: str, images: list[str], **more: Any) -> str:
    method = "url" if images[0].startswith("http") else "base64"
    body = {"inputMethod": method, "images": images, **PER_IMAGE, **more}
    status, _, answer = cluster.client("web-1", key).send("POST", "/api/v1/jobs", json.dumps(body).encode())
    assert status == 202, answer
    return str(answer["id"])


def items(cluster: Production, key: str, job: str) -> list[dict[str, Any]]:
    answer = cluster.client("web-1", key).send("GET", f"/api/v1/jobs/{job}/items?limit=1000")[2]
    return list(answer["items"])


def test_finished_results_are_readable_with_the_old_key(restored):
    before, new, _ = restored
    client = new.cluster.client("web-1", before.key)
    for job, results in before.results.items():
        assert client.send("GET", f"/api/v1/jobs/{job}/results")[2]["results"] == results


def test_an_open_job_of_urls_succeeds_and_no_answer_is_asked_for_twice(restored, fake):
    before, new, _ = restored
    shown = items(new.cluster, before.key, before.by_url)
    assert [item["result"] for item in shown] == [f"picture {n}" for n in range(490, 520)]
    assert fake.sent.keys().isdisjoint(490 + index for index in before.answered[before.by_url])


def test_uploaded_images_that_were_not_answered_fail_with_one_code_and_the_others_keep_their_answers(restored):
    before, new, _ = restored
    shown = items(new.cluster, before.key, before.uploaded)
    assert [item["result"] for item in shown[:10]] == [f"picture {n}" for n in range(100, 110)]
    assert {(item["code"], item["message"]) for item in shown[10:]} == {("internal_error", LOST)}
    job = new.cluster.client("web-1", before.key).send("GET", f"/api/v1/jobs/{before.uploaded}")[2]
    assert (job["status"], job["usage"]["credits"]) == ("partial", 20)


def test_the_webhooks_of_the_open_jobs_arrive_with_a_signature_of_the_old_secret(restored, receiver):
    before, _, _ = restored
    jobs = {before.by_url, before.uploaded}
    eventually(lambda: jobs <= {json.loads(call["body"])["data"]["id"] for call in receiver.got})
    for call in receiver.got:
        Webhook(before.secret).verify(call["body"], call["headers"])


def test_what_came_after_the_dump_is_unknown_and_new_requests_are_served(restored, web):
    before, new, _ = restored
    client = new.cluster.client("web-1", before.key)
    assert client.send("GET", f"/api/v1/jobs/{before.after}")[0] == 404
    status, _, answer = client.extract({"inputMethod": "url", "images": urls(web, 4000, 1), "prompt": "p"})
    assert (status, answer["results"]) == (200, "Image 1 shows 4000.")


def test_the_books_add_up_and_scratch_is_empty(restored):
    _, new, _ = restored
    eventually(lambda: not faults(new) and not new.cluster.scratch(), 60)


def test_sqlite_is_backed_up_while_it_is_written_and_the_copy_serves(tmp_path):
    if shutil.which("sqlite3") is None:
        pytest.skip("the command sqlite3 is not installed")
    [block] = COMMANDS["Back up SQLite"]
    with serving(tmp_path / "var", ENGINE="ocr") as service:
        # A key of its own, because `serve --ready-key` in a folder without its kept key makes a new one, which revokes the one before.
        service.key = json.loads(service.cli("keys", "create", "old", "--credits", "1000", "--json"))["key"]
        for _ in range(3):
            assert service.send("POST", "/api/v1/jobs", upload())[0] == 202
        paste(block, tmp_path, {})
        key, before = service.key, service.send("GET", "/api/v1/jobs")[2]["jobs"]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    shutil.copy(tmp_path / "extract-image-backup.db", fresh / "extract-image.db")
    shutil.copy(tmp_path / "var" / "secret_key", fresh / "secret_key")
    with serving(fresh, ENGINE="ocr") as service:
        service.key = key
        assert {job["id"] for job in service.send("GET", "/api/v1/jobs")[2]["jobs"]} == {job["id"] for job in before}
        for job in before:
            service.follow(f"/api/v1/jobs/{job['id']}")
        database = Database(f"sqlite:///{fresh / 'extract-image.db'}")
        assert books.faults(database) == []
        database.close()


def upload() -> bytes:
    return json.dumps({"inputMethod": "base64", "images": uploads(1, 1), "prompt": "p"}).encode()


def test_every_command_of_the_page_is_run_here():
    assert {heading: len(blocks) for heading, blocks in COMMANDS.items()} == {
        "Back up Postgres": 1,
        "Back up SQLite": 1,
        "Restore into an empty machine": 2,
    }
