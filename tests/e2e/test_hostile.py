"""`extract-image serve` where the world around it is unkind."""

from __future__ import annotations

import base64
import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import psutil
import pytest

from testbed import ROOT, command_of, environment, pictures, serving
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import Behaviour, always
from tests.rows import quick_folder

pytestmark = pytest.mark.xdist_group("serve")


def body(*numbers: int) -> dict[str, object]:
    images = [base64.b64encode(numbered_picture(number)).decode() for number in numbers]
    return {"inputMethod": "base64", "images": images, "prompt": "a-very-secret-prompt"}


def running(service, word: str) -> psutil.Process:
    family = psutil.Process(service.process.pid).children(recursive=True)
    [found] = [process for process in family if any(word in part for part in command_of(process))]
    return found


@pytest.fixture(scope="module")
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def service(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "data"
    settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url}
    with serving(folder, MAX_WAITERS="1", SYNC_WAIT="60", **settings) as started:
        yield started


@pytest.mark.parametrize("killed", ["unixsocket:", "embedded_server.py"])
def test_a_redis_that_is_killed_half_way_is_replaced_and_the_job_ends(tmp_path, killed):
    with FakeGemini(latency=0.2) as fake, pictures() as web:
        urls = [web.page(f"{n}.png", numbered_picture(n)) for n in range(100)]
        settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url, "FETCH_ALLOW": web.allow}
        with serving(tmp_path / "data", LEASE_SECONDS="2", MERGED_PER_CALL="10", WORKER_CONCURRENCY="4", **settings) as service:
            _, headers, _ = service.extract({"inputMethod": "url", "images": urls, "prompt": "p"}, {"Prefer": "respond-async"})
            # All threads but the one kept for who waits are asking: none listens to Redis, which is when Celery loses its way.
            assert fake.wait_for(lambda: fake.in_flight == 3, timeout=30)
            running(service, killed).kill()
            job = service.follow(headers["location"])
            assert job["counts"] == {"total": 100, "succeeded": 100, "failed": 0}
            assert service.extract(body(7))[2]["results"] == "Image 1 shows 7."
            service.wait_for(lambda: not service.scratch())
            assert service.balance()["held"] == 0


def test_the_data_may_lie_in_a_folder_of_any_name(fake):
    name = "a b ü☃ 100%25 %41 w?t a#b&c=d"  # each of these alone: tests/component/test_folder_names.py
    with quick_folder() as folder:
        with serving(folder / name, GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url) as service:
            assert service.extract(body(5))[0] == 200
        assert (folder / name / "extract-image.db").is_file()
        assert [path.name for path in folder.iterdir()] == [name]


@contextmanager
def process(**options) -> Iterator[subprocess.Popen[str]]:
    """`serve` with its two streams to be looked at; killed where the test fails."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", "serve"], stderr=subprocess.PIPE, text=True, **options
    ) as serve:
        try:
            yield serve
        except BaseException:
            serve.kill()
            raise


def test_modules_in_the_working_directory_are_not_taken_for_ours(fake, tmp_path):
    for name in ("cli", "storage", "structlog", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    settings = environment(tmp_path / "data", GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url)
    with process(cwd=tmp_path, env=settings, stdout=subprocess.PIPE) as serve:
        assert any("is ready at" in line for line in serve.stdout or ())
        serve.terminate()
        _, log = serve.communicate(timeout=60)
    assert serve.returncode == 0
    assert "the wrong module" not in log


def test_a_reader_of_its_standard_output_that_goes_away_does_not_end_it(fake, tmp_path):
    settings = environment(tmp_path / "data", GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url)
    reader, writer = socket.socketpair()
    reader.close()
    with writer, process(cwd=ROOT, env=settings, stdout=writer) as serve:
        assert any("not_announced" in line for line in serve.stderr or ())
        serve.terminate()
        serve.communicate(timeout=60)
    assert serve.returncode == 0


def test_a_client_that_hangs_up_frees_its_waiting_place_and_its_job_goes_on(service, fake):
    fake.latency = 5.0
    try:
        data = json.dumps(body(1)).encode()
        address = urlsplit(service.url)
        calls = len(fake.calls)
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            head = f"POST /api/v1/extract-image HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n"
            client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            assert fake.wait_for(lambda: len(fake.calls) > calls, timeout=30)
            assert service.extract(body(2))[1]["x-error-code"] == "no_waiting_place"
        service.wait_for(lambda: service.extract(body(2), {"Prefer": "wait=1"})[0] == 202)
    finally:
        fake.latency = 0.0
    service.wait_for(lambda: service.balance()["held"] == 0)
    with closing(sqlite3.connect(service.folder / "extract-image.db")) as database:
        assert database.execute("SELECT DISTINCT status FROM jobs").fetchall() == [("succeeded",)]


def test_an_answer_with_half_a_character_costs_no_other_answer(service, fake):
    fake.script = always(Behaviour(text=lambda text: f"{text}\ud800\x00"))
    try:
        status, _, answer = service.extract(body(3))
    finally:
        fake.script = None
    assert (status, answer["results"]) == (200, "Image 1 shows 3.\ufffd\ufffd")


def test_a_request_that_fails_for_a_part_that_is_away_leaves_no_secret_in_the_log(service):
    scratch = service.folder / "scratch"
    service.wait_for(lambda: not service.scratch())
    scratch.rename(service.folder / "away")
    scratch.write_text("in the way")
    try:
        status, headers, _ = service.extract(body(4))
    finally:
        scratch.unlink()
        (service.folder / "away").rename(scratch)
    assert (status, headers["x-error-code"]) == (503, "unavailable")
    log = service.log()
    assert re.search("Not a directory|File exists", log)
    for secret in (service.key, "a-very-secret-prompt", str(body(4)["images"])[2:60]):
        assert secret not in log


def test_a_data_folder_that_can_not_be_used_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "extract-image.db").write_text("no database at all")
    for name, said in {"file": "Can't write to DATA_DIR", "damaged": "file is not a database"}.items():
        with process(cwd=ROOT, env=environment(tmp_path / name), stdout=subprocess.PIPE) as serve:
            _, log = serve.communicate(timeout=60)
        assert serve.returncode == 1
        assert said in log
        assert "Traceback" not in log
