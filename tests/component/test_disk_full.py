"""A disk, a database or a bucket that is full: a clear error, nothing half done, and it goes on when there is room."""

from __future__ import annotations

import io
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.errors import FULL, StorageFull
from storage.database import Database, migrate
from storage.scratch.files import FileScratch
from storage.scratch.open import open_scratch
from storage.scratch.s3 import FULL_CODES
from tests.contract.test_s3 import failure_of, fault
from tests.fakes.odd_s3 import odd_s3
from tests.harness import b64
from tests.rows import new_account

BODY = {"inputMethod": "base64", "images": [b64(b"img a")], "prompt": "p"}
SMALL = 1 << 20


def full(*_: object) -> None:
    raise StorageFull("No space left on device")


def new_accounts(database: Database) -> None:
    """More than a small disk has room for."""
    for _ in range(1000):
        new_account(database)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_request_for_which_there_is_no_room_says_so_and_leaves_nothing(harness):
    harness.scratch.put = full  # type: ignore[method-assign]
    answer = harness.post(BODY)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "storage_full")
    assert answer.headers["Retry-After"]
    assert "nothing was accepted or charged" in answer.json["error"]
    assert harness.count_rows("jobs") == 0
    assert harness.balance() == (100_000, 0, 0)


def test_a_job_waits_for_room_says_why_and_goes_on(make_harness):
    house = make_harness(workers_count=0)
    answer = house.post(BODY, headers={"Prefer": "respond-async"})
    path, put = answer.headers["Location"], house.scratch.put
    house.scratch.put = full  # type: ignore[method-assign]
    for _ in range(4):  # more often than a step may fail
        house.drain()
        house.skip_waits()
    job = house.get(path).json
    assert (job["status"], job["warnings"]) == ("running", [FULL])
    house.scratch.put = put  # type: ignore[method-assign]
    house.drain()
    assert house.get(path).json["status"] == "succeeded"


def test_a_folder_on_a_full_disk_keeps_what_it_had_and_no_half_objects(small_disk):
    scratch = FileScratch(small_disk / "scratch")
    scratch.put("job/old", io.BytesIO(b"old"))
    with pytest.raises(StorageFull, match="No space left"):
        scratch.put("job/old", io.BytesIO(os.urandom(2 * SMALL)))
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["old"]
    with scratch.open("job/old") as kept:
        assert kept.read() == b"old"
    scratch.put("job/new", io.BytesIO(os.urandom(SMALL // 2)))


def test_a_database_on_a_full_disk_keeps_what_it_had(small_disk):
    database = Database(f"sqlite:///{small_disk / 'full.db'}")
    migrate(database)
    account = new_account(database)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(os.urandom(4096))
            file.flush()
    with pytest.raises(StorageFull):
        new_accounts(database)
    filler.unlink()
    assert new_account(database) != account
    database.close()


def test_a_postgres_that_is_full_is_known_by_its_sqlstate(postgres_server):
    with postgres_server.database() as url:
        database = Database(url)
        with pytest.raises(StorageFull), database.write() as connection:
            connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$")
        database.close()


@pytest.mark.parametrize(("status", "code"), [(507, "Whatever"), *((403, code) for code in sorted(FULL_CODES))])
def test_a_bucket_that_is_full_is_told_from_one_that_is_away(status, code):
    with odd_s3(lambda _: fault(status, code)) as server:
        error = failure_of(open_scratch(server.settings()), "put")
    assert isinstance(error, StorageFull)
    assert "make room" in str(error)
