"""What every scratch store promises: the one in memory, the folder, and S3."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import SettingsFault, load_settings
from pipeline.errors import PartError
from pipeline.ports import Scratch
from storage.account.accounts import random_id
from storage.scratch.files import FileScratch
from storage.scratch.open import open_scratch
from testbed import S3Server
from tests.fakes.scratch import MemoryScratch
from tests.rows import at_once

NO_KEYS = [
    "",
    "a",
    "/a/b",
    "../a/b",
    "a/../b",
    "a/..",
    "a/.",
    "a//b",
    "a/b/",
    "a/b c",
    "a/b\n",
    "a/b\0",
    "a/é",
    "./a/b",
    "a\\b/c",
]


@pytest.fixture(params=["memory", "folder", "s3"])
def scratch(request: pytest.FixtureRequest, tmp_path: Path) -> Scratch:
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        return open_scratch(server.settings(random_id("scratch_", 8)))
    return MemoryScratch() if request.param == "memory" else FileScratch(tmp_path / "scratch")


class BrokenBody(io.BytesIO):
    """Gives some bytes, then fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() == 0:
            self.seek(1)
            return b"half of it" if size and size > 0 else _fail()
        return _fail()


def _fail() -> bytes:
    raise OSError("the disk it comes from is gone")


def put(scratch: Scratch, key: str, data: bytes = b"body") -> None:
    scratch.put(key, io.BytesIO(data))


def read(scratch: Scratch, key: str) -> bytes:
    with scratch.open(key) as file:
        return file.read()


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 12_289])
def test_what_was_put_is_read_back(scratch, data):
    put(scratch, "job_1/a", data)
    assert read(scratch, "job_1/a") == data


def test_a_body_is_stored_from_its_start_wherever_it_stands(scratch):
    body = io.BytesIO(b"from the start")
    body.seek(5)
    scratch.put("job_1/a", body)
    assert read(scratch, "job_1/a") == b"from the start"


def test_putting_again_replaces_the_whole_object(scratch):
    put(scratch, "job_1/a", b"a long first body")
    put(scratch, "job_1/a", b"short")
    assert read(scratch, "job_1/a") == b"short"
    assert list(scratch.list("")) == ["job_1/a"]


def test_a_reader_can_go_anywhere_in_the_object(scratch):
    put(scratch, "job_1/a", b"0123456789")
    with scratch.open("job_1/a") as file:
        assert file.seek(0, 2) == 10
        file.seek(3)
        assert file.read(2) == b"34"
        file.seek(-2, 2)
        assert file.read() == b"89"


def test_an_object_that_is_not_there_is_a_missing_file(scratch):
    put(scratch, "job_1/a")
    for key in ("job_1/b", "job_2/a", "job_1/a/b" if isinstance(scratch, MemoryScratch) else "job_1/c"):
        with pytest.raises(FileNotFoundError):
            scratch.open(key)


def test_a_deleted_object_is_gone_and_the_others_stay(scratch):
    for key in ("job_1/a", "job_1/b", "job_2/a"):
        put(scratch, key)
    scratch.delete(["job_1/a"])
    assert sorted(scratch.list("")) == ["job_1/b", "job_2/a"]
    with pytest.raises(FileNotFoundError):
        scratch.open("job_1/a")


def test_deleting_what_is_not_there_is_no_error(scratch):
    put(scratch, "job_1/a")
    scratch.delete(["job_1/z", "job_9/a", "job_1/a", "job_1/a"])
    scratch.delete([])
    assert list(scratch.list("")) == []


def test_more_objects_than_one_request_may_name_go_with_one_delete(scratch):
    keys = [f"job_1/in-c{number}" for number in range(1_100)]
    for key in keys:
        put(scratch, key, b"x")
    scratch.delete(iter(keys))
    assert list(scratch.list("")) == []


def test_an_emptied_place_can_be_filled_again(scratch):
    put(scratch, "job_1/a")
    scratch.delete(["job_1/a"])
    put(scratch, "job_1/a", b"again")
    assert read(scratch, "job_1/a") == b"again"


def test_a_list_holds_what_begins_with_the_prefix_and_nothing_else(scratch):
    keys = ["job_1/in-c0", "job_1/r1-c0-e1", "job_1/r1-c1-e12", "job_12/in-c0", "other/deep/down"]
    for key in keys:
        put(scratch, key)
    assert sorted(scratch.list("")) == keys
    assert sorted(scratch.list("job_1/")) == keys[:3]
    assert sorted(scratch.list("job_1")) == keys[:4]
    assert sorted(scratch.list("job_1/r1-c1-")) == keys[2:3]
    assert list(scratch.list("other/deep/")) == keys[4:]
    assert list(scratch.list("job_2/")) == []


def test_the_ages_are_those_of_the_listed_objects(scratch):
    for key in ("job_1/a", "job_1/b", "job_2/a"):
        put(scratch, key)
    found = dict(scratch.ages("job_1/"))
    assert sorted(found) == ["job_1/a", "job_1/b"]
    # S3 tells whole seconds. No test takes an hour.
    assert all(-2 < age < 3600 for age in found.values())


def test_what_was_listed_can_be_deleted_while_its_age_is_asked(scratch):
    for number in range(20):
        put(scratch, f"job_{number}/a")
    for key, _ in scratch.ages(""):
        scratch.delete([key])
    assert list(scratch.ages("")) == []


def test_what_was_listed_can_be_deleted_while_the_list_is_read(scratch):
    for number in range(20):
        put(scratch, f"job_{number}/a")
    for key in scratch.list(""):
        scratch.delete([key])
    assert list(scratch.list("")) == []


@pytest.mark.parametrize("key", NO_KEYS)
@pytest.mark.parametrize("action", ["put", "open", "delete"])
def test_a_key_that_could_lead_elsewhere_is_refused(scratch, key, action):
    actions: dict[str, Callable[[], object]] = {
        "put": lambda: put(scratch, key),
        "open": lambda: scratch.open(key),
        "delete": lambda: scratch.delete([key]),
    }
    with pytest.raises(ValueError, match="no scratch key"):
        actions[action]()
    assert list(scratch.list("")) == []


def test_a_body_that_fails_half_way_leaves_no_object(scratch):
    with pytest.raises(OSError, match="the disk"):
        scratch.put("job_1/a", BrokenBody())
    assert list(scratch.list("")) == []
    with pytest.raises(FileNotFoundError):
        scratch.open("job_1/a")


def test_a_body_that_fails_half_way_leaves_the_old_object_whole(scratch):
    put(scratch, "job_1/a", b"old")
    with pytest.raises(OSError, match="the disk"):
        scratch.put("job_1/a", BrokenBody())
    assert read(scratch, "job_1/a") == b"old"
    assert list(scratch.list("")) == ["job_1/a"]


def test_where_every_upload_was_finished_none_is_aborted(scratch):
    scratch.put("job_1/a", io.BytesIO(b"x"))
    assert scratch.abort_uploads(-1) == 0
    assert list(scratch.list("")) == ["job_1/a"]


def test_of_many_writers_of_one_object_one_wins_whole(scratch):
    bodies = [bytes([number]) * 300_000 for number in range(4)]
    assert at_once(*(lambda body=body: put(scratch, "job_1/a", body) for body in bodies)) == [None] * 4
    assert read(scratch, "job_1/a") in bodies
    assert list(scratch.list("")) == ["job_1/a"]


def test_a_put_succeeds_while_its_neighbours_are_deleted(scratch):
    def work(name: str) -> Iterator[None]:
        for number in range(150):
            put(scratch, f"job_1/{name}{number}", b"x")
            scratch.delete([f"job_1/{name}{number}"])
            yield

    assert at_once(*(lambda name=name: len(list(work(name))) for name in "abc")) == [150] * 3
    assert list(scratch.list("")) == []


def test_a_second_store_on_the_same_folder_sees_the_same_objects(tmp_path):
    settings = load_settings({"SCRATCH_URL": f"file:{tmp_path}"})
    put(open_scratch(settings), "job_1/a", b"shared")
    assert read(open_scratch(settings), "job_1/a") == b"shared"


@pytest.mark.parametrize(
    "url",
    ["file:", "s4://bucket", "/var/scratch", "s3://", "s3:bucket", "s3:///a", "s3://b", "s3://bucket//a", "s3://bucket/../a"],
)
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(SettingsFault, match="SCRATCH_URL: must"):
        load_settings({"SCRATCH_URL": url})


def test_what_a_killed_writer_left_is_listed_and_can_be_deleted(tmp_path):
    scratch = FileScratch(tmp_path)
    put(scratch, "job_1/a")
    (tmp_path / "job_1" / ".partial-xyz").write_bytes(b"half")
    left = sorted(scratch.list("job_1/"))
    assert left == ["job_1/.partial-xyz", "job_1/a"]
    scratch.delete(left)
    assert list(tmp_path.iterdir()) == []


def test_an_emptied_folder_goes_and_the_store_itself_stays(tmp_path):
    scratch = FileScratch(tmp_path / "scratch")
    put(scratch, "job_1/deep/down/a")
    put(scratch, "job_1/b")
    scratch.delete(["job_1/deep/down/a"])
    assert [path.name for path in (tmp_path / "scratch" / "job_1").iterdir()] == ["b"]
    scratch.delete(["job_1/b"])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_cannot_be_deleted_is_counted_and_the_rest_goes(tmp_path):
    scratch = FileScratch(tmp_path)
    for key in ("job_1/folder/a", "job_2/a"):
        put(scratch, key)
    with pytest.raises(PartError, match=r"1 scratch objects could not be deleted, the first is job_1/folder"):
        scratch.delete(["job_1/folder", "job_2/a"])
    assert list(scratch.list("")) == ["job_1/folder/a"]
