"""Many small jobs are cleaned with one request to scratch, and what can't be cleaned in a group is cleaned alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.errors import Permanent, Transient
from tests.harness import Harness, b64, running
from tests.rows import claimed, eventually, set_steps, step_ids, step_row
from workers.cleaning import Cleaning
from workers.run import run_step


@contextmanager
def cleaned(folder: Path, *, group_seconds: float = 60.0) -> Iterator[Harness]:
    """A service whose worker cleans in groups. A group is cleaned at the latest when the worker ends."""
    with running(folder, workers_count=0) as house:
        cleaning = Cleaning(house.database, house.scratch, house.signals, group_seconds=group_seconds)
        house.work = replace(house.work, cleaning=cleaning)
        try:
            yield house
        finally:
            cleaning.close()


def accepted(house: Harness, count: int, **fields: object) -> list[str]:
    body = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p", **fields}
    return [house.post(body, headers={"Prefer": "respond-async"}).json["id"] for _ in range(count)]


def requests_of(house: Harness) -> list[str]:
    """The requests to scratch from now on: list, or delete with the number of keys."""
    made: list[str] = []
    delete, found = house.scratch.delete, house.scratch.list

    def deleting(keys):
        keys = list(keys)
        made.append(f"delete {len(keys)}")
        delete(keys)

    house.scratch.delete = deleting
    house.scratch.list = lambda prefix: (made.append("list"), found(prefix))[1]
    return made


def state_of(house: Harness, job: str) -> str:
    [step] = step_ids(house.database, job, "cleanup")
    return step_row(house.database, step).state


def test_the_objects_of_many_jobs_go_in_one_request_when_the_worker_ends(tmp_path):
    with cleaned(tmp_path) as house:
        jobs = accepted(house, 3)
        made = requests_of(house)
        house.drain()
        assert made == []
        assert [state_of(house, job) for job in jobs] == ["leased"] * 3
        house.work.cleaning.close()
        assert made == ["delete 6"], "of each job its input and its staged object"
        assert [state_of(house, job) for job in jobs] == ["done"] * 3
        assert house.scratch.objects == {}


def test_a_group_is_cleaned_when_its_time_has_come(tmp_path):
    with cleaned(tmp_path, group_seconds=0.01) as house:
        [job] = accepted(house, 1)
        house.drain()
        eventually(lambda: state_of(house, job) == "done")
        assert house.scratch.objects == {}


def test_a_job_whose_step_was_claimed_twice_is_listed(tmp_path):
    with cleaned(tmp_path) as house:
        [job] = accepted(house, 1)
        lease = claimed(house.database, step_ids(house.database, job)[0])
        house.scratch.put(f"{job}/r1-c0-e{lease.epoch}", io.BytesIO(b"of a worker that died"))
        set_steps(house.database, lease.step, lease_until=0)
        house.supervisor.reclaim()
        house.drain()
        made = requests_of(house)
        house.work.cleaning.close()
        assert "list" in made
        assert state_of(house, job) == "done"
        assert house.scratch.objects == {}


def test_kept_images_stay(tmp_path):
    with cleaned(tmp_path) as house:
        [job] = accepted(house, 1, keepInputsSeconds=600)
        house.drain()
        house.work.cleaning.close()
        assert list(house.scratch.objects) == [f"{job}/in-c0"]
        house.expire_inputs()


def test_what_the_ocr_read_for_a_job_with_evidence_is_deleted_with_the_job(tmp_path):
    with cleaned(tmp_path) as house:
        [job] = accepted(house, 1, granularity="perImage", jsonMode=True, evidence=True)
        house.drain()
        assert [key for key in house.scratch.objects if key.startswith(f"{job}/ocr-")] != []
        house.work.cleaning.close()
        assert state_of(house, job) == "done"
        assert house.scratch.objects == {}


def failing_once(house: Harness, error: Exception) -> None:
    delete, failures = house.scratch.delete, iter([error])

    def failing(keys):
        for failure in failures:
            raise failure
        delete(keys)

    house.scratch.delete = failing


def test_a_group_that_fails_is_cleaned_step_by_step(tmp_path):
    with cleaned(tmp_path) as house:
        jobs = accepted(house, 2)
        house.drain()
        failing_once(house, Permanent("one of the keys is odd"))
        house.work.cleaning.close()
        assert [state_of(house, job) for job in jobs] == ["done"] * 2
        assert house.scratch.objects == {}


def test_while_scratch_is_away_the_whole_group_is_handed_back_and_no_try_is_counted(tmp_path):
    with cleaned(tmp_path) as house:
        jobs = accepted(house, 2)
        house.drain()
        failing_once(house, Transient("S3 is away"))
        house.work.cleaning.close()
        rows = [step_row(house.database, step) for job in jobs for step in step_ids(house.database, job, "cleanup")]
        assert [(row.state, row.tries) for row in rows] == [("ready", 0)] * 2
        house.skip_waits()
        house.drain()
        assert house.scratch.objects == {}


def test_a_lease_that_ran_out_meanwhile_ends_nothing(tmp_path):
    with cleaned(tmp_path) as house:
        [job] = accepted(house, 1)
        house.drain()
        [step] = step_ids(house.database, job, "cleanup")
        set_steps(house.database, step, lease_until=0)
        house.supervisor.reclaim()
        house.work.cleaning.close()
        assert step_row(house.database, step).state == "ready"
        house.work = replace(house.work, cleaning=None)
        run_step(house.work, step)
        assert step_row(house.database, step).state == "done"
