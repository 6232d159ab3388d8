"""Steps that were there when processes died run alone: only a death there accuses, and only the picture that did it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from sqlalchemy import select

from api.app import create_app
from pipeline.types import StepKind
from storage import schema
from storage.queue.steps import ALONE_AFTER, Lease
from storage.scratch.open import open_scratch
from tests.fakes.poisoned_child import POISON
from tests.harness import Harness, b64
from tests.rows import claimed, eventually, set_steps, step_ids, step_row
from workers.alone import Alone, Died, NoSlot
from workers.run import run_lease, run_step


@pytest.fixture
def house(tmp_path):
    """A service whose scratch other processes see."""
    made = Harness(tmp_path, workers_count=0, IMAGES_PER_CALL="8", STEP_SECONDS="60")
    scratch = open_scratch(made.settings)
    made.web = replace(made.web, scratch=scratch)
    made.work = replace(made.work, scratch=scratch)
    made.supervisor.scratch = scratch
    made.app = create_app(made.web)
    yield made
    left = list(scratch.list(""))
    made.close()
    assert left == []


@pytest.fixture
def alone_by(house, tmp_path):
    """Has the house's worker run such steps in children that die of the poison."""
    made: list[Alone] = []

    def use(how: str, *, seats: int = 1) -> Alone:
        alone = Alone([sys.executable, "-m", "tests.fakes.poisoned_child", str(tmp_path), how], slots=seats)
        made.append(alone)
        house.work = replace(house.work, alone=alone)
        return alone

    yield use
    for alone in made:
        alone.close()


def post(house, *texts):
    body = {"inputMethod": "base64", "images": [b64(text) for text in texts], "prompt": "p", "granularity": "perImage"}
    answer = house.post(body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    return answer.json["id"]


def suspect(house, job, kind="extract"):
    """Lets the job's step have been there when two processes died; what comes before it is done."""
    (step,) = step_ids(house.database, job)
    if kind == "extract":
        run_lease(house.work.for_one_step(), claimed(house.database, step))
        (step,) = step_ids(house.database, job, "extract")
    set_steps(house.database, step, expiries=ALONE_AFTER)
    return step


def finish(house):
    """Works until all steps have ended; what a child rang is rung again by the supervisor."""
    while True:
        house.drain()
        with house.database.read() as connection:
            states = set(connection.execute(select(schema.steps_table.c.state)).scalars())
        if not states & {"ready", "leased"}:
            return
        house.age_rings()


def outcomes(house, job):
    columns = schema.images_table.c
    with house.database.read() as connection:
        rows = connection.execute(select(columns.state, columns.code).where(columns.job == job).order_by(columns.index))
        return [row.code or row.state for row in rows]


def deaths(tmp_path):
    """How many pictures were in the hands of each child that died."""
    return [int(line) for line in (tmp_path / "deaths").read_text().split()]


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_the_picture_that_kills_its_process_fails_and_its_neighbours_do_not(house, alone_by, tmp_path, how):
    alone_by(how)
    job = post(house, *[POISON if place == 5 else f"img{place}".encode() for place in range(8)])
    suspect(house, job)
    finish(house)
    assert outcomes(house, job) == ["done"] * 5 + ["worker_crashed"] + ["done"] * 2
    assert [amount for kind, amount in house.ledger(job) if kind == "charge"] == [17]
    assert deaths(tmp_path) == [8, 4, 2, 1, 1]


def test_a_picture_that_hangs_its_process_fails_when_the_step_s_time_is_over(house, alone_by):
    alone_by("hang")
    object.__setattr__(house.work.settings, "step_seconds", 1.0)
    job = post(house, POISON, b"img1")
    suspect(house, job)
    finish(house)
    assert outcomes(house, job) == ["worker_crashed", "done"]


def test_a_step_that_is_only_suspected_ends_like_any_other(house, alone_by):
    alone_by("exit")
    job = post(house, b"img0", b"img1")
    step = suspect(house, job)
    finish(house)
    assert outcomes(house, job) == ["done", "done"]
    assert step_row(house.database, step).state == "done"
    assert len(house.engine.calls) == 0, "the worker itself never touched it"


def test_staging_is_done_alone_too_and_what_follows_it_is_anybody_s(house, alone_by):
    alone_by("exit")
    job = post(house, b"img0", b"img1")
    suspect(house, job, kind="stage")
    finish(house)
    assert outcomes(house, job) == ["done", "done"]
    assert len(house.engine.calls) == 1


def test_a_child_goes_on_from_step_to_step(house, alone_by):
    alone = alone_by("exit")
    children = []
    for _ in range(2):
        job = post(house, b"img0")
        suspect(house, job)
        finish(house)
        children += [child._process.pid for child in alone._idle]
    assert len(children) == 2
    assert len(set(children)) == 1


def test_a_child_that_was_killed_while_it_had_nothing_to_do_accuses_nobody(house, alone_by):
    alone = alone_by("exit")
    first = post(house, b"img0")
    suspect(house, first)
    finish(house)
    (child,) = alone._idle
    child._process.kill()
    child._process.wait()
    second = post(house, b"img0")
    step = suspect(house, second)
    finish(house)
    assert outcomes(house, second) == ["done"]
    assert step_row(house.database, step).deaths == 0


def test_while_all_children_are_busy_a_step_waits_its_turn_and_accuses_nobody(house, alone_by):
    alone = alone_by("exit")
    job = post(house, b"img0")
    step = suspect(house, job)
    assert alone._slots.acquire(blocking=False)
    run_step(house.work, step)
    row = step_row(house.database, step)
    assert (row.state, row.tries, row.deaths) == ("ready", 0, 0)
    assert row.not_before > 0
    alone._slots.release()
    house.skip_waits()
    finish(house)
    assert outcomes(house, job) == ["done"]


def test_a_child_that_can_not_start_accuses_nobody():
    lease = Lease(step=1, job="j", round=1, kind=StepKind.EXTRACT, part=0, epoch=1, tries=0, alone=True)
    for command in (["/nowhere/python"], [sys.executable, "-c", "pass"]):
        with pytest.raises(NoSlot):
            Alone(command).run(lease, seconds=5)


def test_a_child_ends_with_its_parent(house, alone_by):
    alone = alone_by("hang")
    job = post(house, POISON)
    step = suspect(house, job)
    with pytest.raises(Died):
        alone.run(claimed(house.database, step), seconds=0.5)
    set_steps(house.database, step, state="ready", expiries=0)
    finish(house)
    job = post(house, b"img0")
    suspect(house, job)
    finish(house)
    (child,) = alone._idle
    child._process.stdin.close()
    eventually(lambda: child._process.poll() is not None)
