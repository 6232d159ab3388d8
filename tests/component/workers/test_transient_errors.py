"""What a step does when a part fails: it waits for what heals, and gives up what does not."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import pytest
from sqlalchemy import text

from pipeline.decode.pool import DecoderPool
from pipeline.errors import NOT_ALLOWED, Permanent, Transient, not_allowed
from pipeline.ports import ModelUnavailable
from storage.scratch.files import FileScratch
from tests.fakes.engine import FakeEngine
from tests.fakes.picture_files import native
from tests.harness import b64
from tests.rows import disk_fails
from workers.run import MOST_TRIES, run_step

BODY = {"inputMethod": "base64", "images": [b64(b"img a")], "prompt": "p"}
ASYNC = {"Prefer": "respond-async"}
MANY = 2 * MOST_TRIES  #: more often than a step may fail

#: A decoder child whose forks the operating system refuses as long as a file is there: no process is left.
SHORT_OF_PROCESSES = """
import errno, os, sys
def fork():
    if os.path.exists(PATH):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return forks()
forks, os.fork = os.fork, fork
from pipeline.decode.child import main
main()
"""


def work_often(house):
    for _ in range(MANY):
        house.drain()
        house.skip_waits()


def tries_of_open_steps(house):
    with house.database.read() as connection:
        return connection.scalars(text("SELECT tries FROM steps WHERE state IN ('ready', 'leased')")).all()


def raises(error):
    def fail(*_: object) -> None:
        raise error

    return fail


def failed_with_its_credits_released(house, path):
    job = house.get(path).json
    assert job["status"] == "failed"
    assert house.balance() == (100_000, 0, 0)
    return job


def test_a_folder_where_an_object_should_lie_ends_the_job_as_failed_with_its_credits_released(make_harness, tmp_path):
    house = make_harness(workers_count=0)
    files = FileScratch(tmp_path / "files")
    path = house.post(BODY, headers=ASYNC).headers["Location"]
    [key] = house.scratch.objects
    (tmp_path / "files" / key).mkdir(parents=True)
    house.scratch.open = files.open  # type: ignore[method-assign]
    work_often(house)
    failed_with_its_credits_released(house, path)


@pytest.mark.parametrize(
    "column", ["progress", "open"]
)  # the steps read the first one; giving a step up needs the second one too
def test_a_column_that_is_missing_ends_the_job_as_failed_with_its_credits_released(make_harness, column):
    house = make_harness(workers_count=0)
    path = house.post(BODY, headers=ASYNC).headers["Location"]
    with house.database.write() as connection:
        connection.execute(text(f"ALTER TABLE chunks RENAME COLUMN {column} TO gone"))
    work_often(house)
    with house.database.write() as connection:
        connection.execute(text(f"ALTER TABLE chunks RENAME COLUMN gone TO {column}"))
    failed_with_its_credits_released(house, path)


def test_a_decoder_that_can_not_fork_for_want_of_processes_is_waited_for_and_no_try_is_used(make_harness, tmp_path):
    house = make_harness(workers_count=0)
    short = tmp_path / "no process is left"
    short.touch()
    command = (sys.executable, "-c", SHORT_OF_PROCESSES.replace("PATH", repr(str(short))))
    with DecoderPool(1, command=command) as pool:
        # The fake engine answers with a picture's bytes as text.
        house.work = replace(house.work, decode=lambda pictures: (replace(each, data=b"img a") for each in pool(pictures)))
        body = {**BODY, "images": [b64(native()["PNG"])]}
        path = house.post(body, headers=ASYNC).headers["Location"]
        work_often(house)
        assert house.get(path).json["status"] == "running"
        assert tries_of_open_steps(house) == [0]
        short.unlink()
        house.drain()
    assert house.get(path).json["status"] == "succeeded"


def test_what_heals_is_waited_for_and_no_try_is_used(make_harness):
    house = make_harness(workers_count=0)
    path, opened = house.post(BODY, headers=ASYNC).headers["Location"], house.scratch.open
    house.scratch.open = raises(Transient("away"))  # type: ignore[method-assign]
    work_often(house)
    job = house.get(path).json
    assert (job["status"], job["warnings"]) == ("running", [])
    assert tries_of_open_steps(house) == [0]
    house.scratch.open = opened  # type: ignore[method-assign]
    house.drain()
    assert house.get(path).json["status"] == "succeeded"


def test_a_model_that_is_away_is_waited_for_and_no_try_is_used(make_harness):
    away = threading.Event()
    away.set()
    engine = FakeEngine(script=lambda *_: ModelUnavailable("429", retry_after=10) if away.is_set() else None)
    house = make_harness(engine=engine, workers_count=0)
    path = house.post(BODY, headers=ASYNC).headers["Location"]
    work_often(house)
    assert len(engine.calls) == MANY
    assert tries_of_open_steps(house) == [0]
    away.clear()
    house.drain()
    assert house.get(path).json["status"] == "succeeded"


def test_what_a_person_has_to_mend_is_waited_for_and_the_job_says_so(make_harness):
    house = make_harness(workers_count=0)
    path, opened = house.post(BODY, headers=ASYNC).headers["Location"], house.scratch.open
    house.scratch.open = raises(not_allowed("the key may not do that"))  # type: ignore[method-assign]
    work_often(house)
    job = house.get(path).json
    assert (job["status"], job["warnings"]) == ("running", [NOT_ALLOWED])
    house.scratch.open = opened  # type: ignore[method-assign]
    house.drain()
    assert house.get(path).json["status"] == "succeeded"


@pytest.mark.parametrize("error", [Permanent("never"), OSError("nobody translated this"), RuntimeError("a bug")])
def test_what_does_not_heal_and_what_nobody_knows_is_given_up_after_three_tries(make_harness, error):
    house = make_harness(workers_count=0)
    path, calls = house.post(BODY, headers=ASYNC).headers["Location"], []
    house.scratch.open = lambda key: (calls.append(key), raises(error)())  # type: ignore[method-assign]
    work_often(house)
    failed_with_its_credits_released(house, path)
    assert len(calls) == MOST_TRIES


def test_a_scratch_object_that_is_gone_fails_its_step_after_three_tries(make_harness):
    """Waiting does not bring it back, so the job must not wait for it until its deadline."""
    house = make_harness(workers_count=0)
    path = house.post(BODY, headers=ASYNC).headers["Location"]
    house.scratch.objects.clear()
    work_often(house)
    failed_with_its_credits_released(house, path)


def test_a_claim_that_the_database_fails_leaves_the_step_to_be_rung_again(make_harness):
    house = make_harness(workers_count=0)
    path = house.post(BODY, headers=ASYNC).headers["Location"]
    step = house.signals.rung.get_nowait()
    with disk_fails(house.database):
        run_step(house.work, step)
    assert tries_of_open_steps(house) == [0]
    house.age_rings()
    house.drain()
    assert house.get(path).json["status"] == "succeeded"


def test_a_stage_step_whose_job_has_ended_meanwhile_deletes_the_object_that_it_put(make_harness):
    house = make_harness(workers_count=0)
    path, put = house.post(BODY, headers=ASYNC).headers["Location"], house.scratch.put
    staged = []

    def cancel_and_put(key, body):
        assert house.ask("DELETE", path).status_code == 204  # it deletes what lies there now
        put(key, body)
        staged.append(key)

    house.scratch.put = cancel_and_put  # type: ignore[method-assign]
    step = house.signals.rung.get_nowait()
    run_step(house.work, step)
    [key] = staged
    assert key not in house.scratch.objects
