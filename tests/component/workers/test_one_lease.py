"""A small job that somebody waits for is carried to its end under the lease of its stage step, with the end of every other job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import event, select, update

from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import Answer, Finish, ItemCode, Prepared
from storage import schema
from storage.database import READ_ONLY
from storage.job import closing
from tests.fakes.engine import FakeEngine, answer_text
from tests.harness import Harness, b64, running
from tests.rows import claimed, end_state, everything, job_row, quick_folder, set_steps, step_ids, step_row, stolen
from workers import one_lease
from workers.run import run_lease, run_step


def refuse_img1(call: Any, _number: int) -> Answer | None:
    if any(picture.data == b"img1" for picture in call.pictures):
        return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY", model_version="fake-1.0")
    return None


@dataclass(frozen=True)
class Request:
    """A request for a job of one chunk."""

    body: dict[str, Any]
    script: Callable[[Any, int], Answer | None] | None = None
    settings: tuple[tuple[str, str], ...] = ()
    calls: int = 1


SEVERAL, BLANK = "several_pages: 2 pages", "blank: all is white"
RECORDS = {"granularity": "perImage", "jsonMode": True}
REQUESTS = {
    "one image": Request({"images": [b64(b"img0")]}),
    "records with a failed image": Request({"images": [b64(b"img0"), b64(b"none"), b64(b"img2")], **RECORDS}),
    "a webhook": Request({"images": [b64(b"img0"), b64(b"img1")], "webhookUrl": "https://hooks.example/extract"}),
    "no image at all": Request({"images": [b64(b"none"), b64(b"none too")]}, calls=0),
    "its one image refused": Request({"images": [b64(b"img1")]}, refuse_img1),
    "one of its images refused": Request({"images": [b64(b"img0"), b64(b"img1"), b64(b"img2")], **RECORDS}, refuse_img1, calls=4),
    "a failure fails all": Request({"images": [b64(b"img0"), b64(b"none")], "onError": "fail"}),
    "kept records": Request(
        {"images": [b64(b"img0"), b64(b"img1")], "schema": {"type": "object"}, "cache": True}, None, (("CACHE_TTL", "60"),)
    ),
    "the same image twice": Request({"images": [b64(b"img0"), b64(b"img0")], **RECORDS}),
}


def accepted(house: Harness, body: dict[str, Any], *, waited: bool = True) -> str:
    """A job for which a caller holds a connection, as far as SQL knows."""
    answer = house.post({"inputMethod": "base64", "prompt": "p", **body}, headers={"Prefer": "respond-async"})
    job: str = answer.json["id"]
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(waited=waited))
    return job


def kinds(house: Harness, job: str) -> list[tuple[str, str]]:
    """Kind and state of the job's steps."""
    columns = schema.steps_table.c
    with house.database.read() as connection:
        query = select(columns.kind, columns.state).where(columns.job == job).order_by(columns.id)
        return [tuple(row) for row in connection.execute(query)]


def notes(house: Harness, job: str) -> list[str | None]:
    columns = schema.images_table.c
    with house.database.read() as connection:
        return list(connection.scalars(select(columns.note).where(columns.job == job).order_by(columns.index)))


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0) as made:
        yield made


WHOLE = [("stage", "done"), ("cleanup", "done")]
USUAL = [("stage", "done"), ("extract", "done"), ("finalize", "done"), ("cleanup", "done")]


@pytest.mark.parametrize("name", REQUESTS)
def test_it_ends_as_it_would_have_ended_step_by_step(name):
    request, ends = REQUESTS[name], []
    for waited in (True, False):
        engine = FakeEngine(script=request.script or (lambda _call, _number: None))
        with quick_folder() as folder, running(folder, workers_count=0, engine=engine, **dict(request.settings)) as house:
            job = accepted(house, request.body, waited=waited)
            house.drain()
            seen = house.get(f"/api/v1/jobs/{job}").json
            assert len(engine.calls) == request.calls
            ends.append((end_state(house.database, house.scratch, job), seen["usage"], seen["counts"], notes(house, job)))
    assert ends[0] == ends[1]


def test_it_takes_two_commits_and_no_second_object_and_a_waiter_hears_of_the_end_first(house):
    job = accepted(house, REQUESTS["one image"].body)
    happened: list[str] = []
    put, tell = house.scratch.put, house.signals.tell
    house.scratch.put = lambda key, body: (happened.append("put"), put(key, body))
    house.signals.tell = lambda of, **options: (happened.append(f"told of its end: {options['ended']}"), tell(of, **options))

    def committed(connection: Any) -> None:
        if not connection.get_execution_options().get(READ_ONLY):
            happened.append("commit")

    event.listen(house.database.engine, "commit", committed)
    run_step(house.work, step_ids(house.database, job)[0])
    assert happened[:3] == ["commit", "commit", "told of its end: True"]
    assert "put" not in happened
    assert kinds(house, job) == WHOLE


def test_a_job_that_nobody_waits_for_or_of_two_chunks_or_with_a_limit_of_money_goes_step_by_step(tmp_path):
    with running(tmp_path, workers_count=0, MERGED_PER_CALL="2") as house:
        jobs = [
            accepted(house, REQUESTS["one image"].body, waited=False),
            accepted(house, {"images": [b64(b"img0")], "maxMoney": 1}),
            accepted(house, {"images": [b64(b"img0"), b64(b"img1"), b64(b"img2")]}),
        ]
        house.drain()
        assert [kinds(house, job) for job in jobs[:2]] == [USUAL, USUAL]
        assert len(kinds(house, jobs[2])) == 6


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_SECONDS"])
def test_what_was_costly_to_stage_is_put(house, limit, monkeypatch):
    monkeypatch.setattr(one_lease, limit, 0)
    job = accepted(house, REQUESTS["one image"].body)
    house.drain()
    assert kinds(house, job) == USUAL


def test_a_busy_model_costs_no_try_and_then_it_goes_step_by_step(tmp_path):
    def busy_once(_call: Any, number: int) -> Answer | None:
        if number < 3:
            raise ModelUnavailable("busy", retry_after=0.01, cause=Cause.BUSY)
        return None

    with running(tmp_path, workers_count=0, engine=FakeEngine(script=busy_once)) as house:
        job = accepted(house, REQUESTS["one image"].body)
        for _ in range(5):
            house.skip_waits()
            house.drain()
        assert kinds(house, job) == USUAL
        assert [step_row(house.database, step).tries for step in step_ids(house.database, job)] == [0]
        assert job_row(house.database, job).status == "succeeded"


def test_a_failure_of_ours_counts_a_try_of_the_stage_step(tmp_path):
    def fail_once(_call: Any, number: int) -> Answer | None:
        if number == 1:
            raise RuntimeError("a bug")
        return None

    with running(tmp_path, workers_count=0, engine=FakeEngine(script=fail_once)) as house:
        job = accepted(house, REQUESTS["one image"].body)
        run_step(house.work, step_ids(house.database, job)[0])
        row = step_row(house.database, step_ids(house.database, job)[0])
        assert (row.state, row.tries, row.epoch) == ("ready", 1, 1)
        house.skip_waits()
        house.drain()
        assert kinds(house, job) == USUAL


def test_a_worker_that_is_overtaken_while_the_model_answers_changes_nothing(tmp_path):
    seen: dict[str, Any] = {}

    def overtaken(_call: Any, number: int) -> Answer | None:
        if number == 1:
            house, lease = seen["house"], seen["lease"]
            set_steps(house.database, lease.step, state="leased")
            seen["thief"] = stolen(house.database, lease)
            seen["before"] = everything(house.database)
        return None

    with running(tmp_path, workers_count=0, engine=FakeEngine(script=overtaken)) as house:
        job = accepted(house, REQUESTS["one image"].body)
        seen |= {"house": house, "lease": claimed(house.database, step_ids(house.database, job)[0])}
        assert run_lease(house.work, seen["lease"]) == []
        assert everything(house.database) == seen["before"]
        run_lease(house.work.for_one_step(), seen["thief"])
        house.drain()
        assert kinds(house, job) == USUAL
        assert len(house.engine.calls) == 2


def test_a_picture_that_kills_whoever_sends_it_ends_two_workers_and_is_then_sent_alone(house):
    job = accepted(house, REQUESTS["one image"].body)
    first = claimed(house.database, step_ids(house.database, job)[0])  # its holder dies of the call
    run_lease(house.work.for_one_step(), stolen(house.database, first))
    second = claimed(house.database, step_ids(house.database, job, "extract")[0])  # so does this one's
    assert not second.alone
    assert stolen(house.database, second).alone


@pytest.mark.parametrize(("waited", "more"), [(False, {}), (True, {"maxMoney": 1})])
def test_a_death_while_a_job_that_goes_step_by_step_was_staged_is_not_counted_as_one_of_its_calls(house, waited, more):
    job = accepted(house, {**REQUESTS["one image"].body, **more}, waited=waited)
    first = claimed(house.database, step_ids(house.database, job)[0])
    run_lease(house.work.for_one_step(), stolen(house.database, first))
    assert step_row(house.database, step_ids(house.database, job, "extract")[0]).expiries == 0


def test_a_cancel_while_the_model_answers_ends_the_job_at_once(tmp_path):
    seen: dict[str, Any] = {}

    def cancelled(_call: Any, _number: int) -> Answer | None:
        with seen["house"].database.write() as connection:
            closing.cancel(connection, seen["job"])
        return None

    with running(tmp_path, workers_count=0, engine=FakeEngine(script=cancelled)) as house:
        seen |= {"house": house, "job": accepted(house, REQUESTS["one image"].body)}
        house.drain()
        house.skip_waits()
        house.drain()
        row = job_row(house.database, seen["job"])
        assert (row.status, row.result, row.credits) == ("cancelled", None, 0)
        assert [kind for kind, _ in house.ledger(seen["job"])] == ["reserve", "charge", "release"]


def test_a_process_that_is_stopping_leaves_the_call_to_another(house):
    job = accepted(house, REQUESTS["one image"].body)
    lease = claimed(house.database, step_ids(house.database, job)[0])
    assert run_lease(house.work.for_one_step(), lease) == []
    assert house.engine.calls == []
    assert kinds(house, job) == [("stage", "done"), ("extract", "ready")]
    house.drain()


def test_notes_of_staging_and_of_the_call_stand_once_each():
    def noted(call: Any, _number: int) -> Answer:
        notes = {1: SEVERAL, 2: BLANK}
        return Answer(finish=Finish.COMPLETE, text=answer_text(call), model_version="fake-1.0", reencoded=(1,), notes=notes)

    def decode(pictures: list[bytes]) -> Any:
        for data in pictures:
            yield Prepared(data=data, mime="image/png", width=1, height=1, source_format="PNG", note=SEVERAL)

    ends = []
    for waited in (True, False):
        with quick_folder() as folder, running(folder, workers_count=0, engine=FakeEngine(script=noted)) as house:
            house.work = replace(house.work, decode=decode)
            job = accepted(house, {"images": [b64(b"img0"), b64(b"img1")]}, waited=waited)
            house.drain()
            row = job_row(house.database, job)
            assert row.status == "succeeded"
            ends.append((notes(house, job), row.warnings))
    assert ends[0] == ends[1]
    assert ends[0][0] == [f"{SEVERAL}; reencoded", f"{SEVERAL}; {BLANK}"]


def test_a_worker_that_stops_meanwhile_leaves_the_cleanup_to_others(house):
    job = accepted(house, REQUESTS["one image"].body)
    [step] = step_ids(house.database, job)
    ask = house.engine.ask

    def stop(call: Any) -> Answer:
        house.work.stopping.set()
        return ask(call)

    house.engine.ask = stop
    run_step(house.work, step)
    house.work.stopping.clear()
    columns = schema.steps_table.c
    with house.database.read() as connection:
        cleanup = connection.execute(select(columns).where(columns.job == job, columns.kind == "cleanup")).one()
    assert (cleanup.state, cleanup.tries, cleanup.expiries) == ("ready", 0, 0)
    assert cleanup.rung_at is not None
    house.drain()
    assert kinds(house, job) == WHOLE
