"""What is rung, and when: of each account so many steps at a time, and again what was lost."""

from __future__ import annotations

from functools import partial
from threading import Event
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from pipeline.types import StepKind
from storage import schema
from storage.job import accepting, chunks
from storage.queue import ringing, steps
from storage.queue.ringing import AHEAD_WINDOW, RING_AGAIN_MS, WINDOW
from storage.sql_errors import ConstraintViolated
from tests.rows import at_once, claimed, job_of, new_account, new_job, now, ring, rung_now, set_steps, step_ids, step_row
from workers.run import _commit


@pytest.fixture
def account(database):
    return new_account(database)


@pytest.fixture
def job(database, account):
    return new_job(database, account)


@pytest.fixture
def step(database, job):
    (only,) = step_ids(database, job)
    return only


def test_a_step_is_rung_once_and_again_only_after_thirty_seconds_and_twice_as_long_each_time(database, step):
    patience = RING_AGAIN_MS
    for rings in range(1, 10):
        assert rung_now(database) == [step]
        assert step_row(database, step).rings == rings
        assert ring(database) == []
        set_steps(database, step, rung_at=now(database) - patience + 5_000)
        assert ring(database) == []
        set_steps(database, step, rung_at=now(database) - patience - 1)
        patience = min(patience * 2, RING_AGAIN_MS * 32)


@pytest.mark.parametrize("state", ["leased", "done", "dead", "cancelled"])
def test_only_ready_steps_are_rung(database, step, state):
    set_steps(database, step, state=state)
    assert ring(database) == []


def test_of_one_account_no_more_than_its_window_is_rung_and_a_step_that_ends_makes_room(database, account):
    ids = step_ids(database, new_job(database, account, images=WINDOW + 10))
    assert rung_now(database) == ids[:WINDOW]
    assert ring(database) == []
    lease = claimed(database, ids[5])
    assert ring(database) == [], "what is leased takes its place too"
    with database.write() as connection:
        steps.finish(connection, lease)
    assert rung_now(database) == [ids[WINDOW]]


def test_the_window_is_the_account_s_not_the_job_s(database, account):
    first = step_ids(database, new_job(database, account, images=WINDOW - 2))
    second = step_ids(database, new_job(database, account, images=10))
    assert rung_now(database) == first + second[:2]


def test_a_large_account_takes_nothing_from_a_small_one(database, account):
    large = step_ids(database, new_job(database, account, images=WINDOW * 3))
    small = step_ids(database, new_job(database, new_account(database)))
    rung = set(rung_now(database))
    assert rung == {*large[:WINDOW], *small}


def test_a_small_account_is_rung_while_a_large_one_s_window_is_full(database, account):
    new_job(database, account, images=WINDOW * 2)
    assert len(ring(database)) == WINDOW
    small = step_ids(database, new_job(database, new_account(database)))
    assert rung_now(database) == small


def test_what_somebody_waits_for_goes_first_and_is_marked(database, account):
    slow = step_ids(database, new_job(database, account, images=WINDOW + 1))
    (fast,) = step_ids(database, new_job(database, account, waited=True))
    rung = ring(database)
    assert (rung[0].step, rung[0].waited) == (fast, True)
    assert [ring.step for ring in rung[1:]] == slow[: WINDOW - 1]
    assert not any(ring.waited for ring in rung[1:])


def accepted_and_rung(database, account, **options) -> tuple[list[int], list[ringing.Ring]]:
    """The stage steps of a new job, and which of them its own transaction announces."""
    new = job_of(account, **options)
    with database.write() as connection:
        rings = accepting.accept(connection, new, max_open=1000, max_scratch=10**12, announces=True)
    return step_ids(database, new.id), rings


def test_a_job_of_one_chunk_that_somebody_waits_for_is_announced_as_it_is_accepted(database, account):
    (fast,), rings = accepted_and_rung(database, account, waited=True)
    assert rings == [ringing.Ring(fast, waited=True)]
    assert ring(database) == [], "it takes its place"
    row, other = step_row(database, fast), step_row(database, *step_ids(database, new_job(database, account, waited=True)))
    assert (row.rings, other.rings) == (1, 0)
    same = ("account", "kind", "state", "priority", "epoch", "tries", "expiries", "not_before", "part", "round")
    assert [getattr(row, name) for name in same] == [getattr(other, name) for name in same]
    set_steps(database, fast, rung_at=now(database) - RING_AGAIN_MS - 1)
    assert fast in rung_now(database), "its message may be lost"


def test_what_is_accepted_while_the_window_is_full_of_waited_steps_is_announced_when_one_ends(database, account):
    for _ in range(WINDOW - 1):
        accepted_and_rung(database, account, waited=True)
    (last,), rings = accepted_and_rung(database, account, waited=True)
    assert [each.step for each in rings] == [last]
    (late,), rings = accepted_and_rung(database, account, waited=True)
    assert rings == []
    assert ring(database) == []
    (strange,), rings = accepted_and_rung(database, new_account(database), waited=True)
    assert [each.step for each in rings] == [strange]
    lease = claimed(database, last)
    with database.write() as connection:
        steps.finish(connection, lease)
    assert rung_now(database) == [late]


def test_usual_steps_that_are_announced_take_no_place_from_one_that_somebody_waits_for(database, account):
    slow, rings = accepted_and_rung(database, account, images=WINDOW + 1)
    assert [(each.step, each.waited) for each in rings] == [(step, False) for step in slow[:WINDOW]]
    (fast,), rings = accepted_and_rung(database, account, waited=True)
    assert [each.step for each in rings] == [fast]


def test_slow_steps_have_a_window_of_their_own_and_are_marked(database, account):
    slow = step_ids(database, new_job(database, account, images=WINDOW + 5))
    set_steps(database, *slow, priority=steps.SLOW)
    usual = step_ids(database, new_job(database, account, images=WINDOW + 5))
    rung = ring(database)
    assert [each.step for each in rung if each.slow] == slow[:WINDOW]
    assert [each.step for each in rung if not each.slow] == usual[:WINDOW]
    claimed(database, slow[0])
    assert ring(database) == [], "what is leased takes its place too"


def test_few_steps_at_a_time_stage_images_for_slow_steps_and_keep_no_usual_step_waiting(database, account):
    ahead = step_ids(database, new_job(database, account, images=WINDOW))
    set_steps(database, *ahead, priority=steps.AHEAD)
    usual = step_ids(database, new_job(database, account, images=WINDOW))
    rung = ring(database)
    assert [each.step for each in rung] == ahead[:AHEAD_WINDOW] + usual
    assert not any(each.slow for each in rung)
    lease = claimed(database, ahead[0])
    assert ring(database) == [], "what is leased takes its place too"
    with database.write() as connection:
        steps.finish(connection, lease)
        assert [each.step for each in ringing.to_ring(connection, beside=lease.job, known=(account, "economy"))] == [
            ahead[AHEAD_WINDOW]
        ]


def test_slow_steps_that_are_hurried_are_rung_anew_as_usual_ones(database, account):
    held, waiting, late = step_ids(database, new_job(database, account, images=3))
    set_steps(database, held, waiting, late, priority=steps.SLOW)
    ring(database)
    lease = claimed(database, held)
    assert lease.slow
    set_steps(database, late, not_before=now(database) + 60_000)
    with database.write() as connection:
        assert steps.hurry_waiting(connection, [held, waiting, late]) == 2
    assert [(each.step, each.slow) for each in ring(database)] == [(waiting, False), (late, False)]
    with database.write() as connection:
        steps.hurry(connection, lease)
    assert [(each.step, each.slow) for each in ring(database)] == [(held, False)]


def test_the_rings_of_slow_steps_are_forgotten_apart(database, account):
    slow, usual = step_ids(database, new_job(database, account, images=2))
    set_steps(database, slow, priority=steps.SLOW)
    ring(database)
    set_steps(database, slow, usual, rung_at=now(database) - 3_000)
    with database.write() as connection:
        ringing.forget_rings(connection, slow=True)
    assert rung_now(database) == [slow]


def test_a_step_whose_time_has_not_come_takes_no_place_in_the_window(database, account):
    ids = step_ids(database, new_job(database, account, images=WINDOW + 3))
    set_steps(database, *ids[:3], not_before=now(database) + 60_000)
    assert rung_now(database) == ids[3:]


def test_beside_a_job_only_its_account_s_steps_are_rung(database, account):
    job = new_job(database, account)
    neighbour = new_job(database, account)
    stranger = new_job(database, new_account(database))
    rung = rung_now(database, beside=job)
    assert rung == step_ids(database, job) + step_ids(database, neighbour)
    assert rung_now(database) == step_ids(database, stranger)


def test_what_was_rung_long_ago_is_rung_again_by_the_supervisor_alone(database, account):
    job = new_job(database, account)
    ring(database)
    set_steps(database, rung_at=1)
    assert ring(database, beside=job) == []
    assert rung_now(database) == step_ids(database, job)


def test_a_limit_bounds_what_is_rung_and_the_rest_comes_next(database, account):
    ids = step_ids(database, new_job(database, account, images=5))
    assert rung_now(database, limit=3) == ids[:3]
    assert rung_now(database, limit=3) == ids[3:]


def test_two_supervisors_that_ring_at_once_ring_every_step(database, account):
    ids = step_ids(database, new_job(database, account, images=20))
    both = at_once(lambda: ring(database), lambda: ring(database))
    assert {ring.step for rings in both for ring in rings} == set(ids)
    assert ring(database) == []


def test_forgotten_rings_are_rung_anew_but_not_those_of_the_last_seconds(database, account):
    old, fresh = step_ids(database, new_job(database, account, images=2))
    ring(database)
    set_steps(database, old, rung_at=now(database) - 3_000)
    with database.write() as connection:
        ringing.forget_rings(connection)
    assert rung_now(database) == [old]
    assert step_row(database, fresh).rings == 1


def test_a_step_of_the_same_kind_and_part_of_a_round_exists_once(database, job, step):
    columns = schema.steps_table.c
    with pytest.raises(ConstraintViolated), database.write() as connection:
        steps.add(connection, job=job, round_=1, kind=StepKind.STAGE, parts=[0])
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.steps_table).where(columns.job == job)) == 1


def test_a_job_that_ends_in_the_midst_of_its_work_has_the_account_s_other_jobs_rung_at_once(database, account):
    """Through the worker's own commit, with all but the database left out."""
    job, other = (new_job(database, account, images=100) for _ in range(2))
    with database.write() as connection:
        assert len(ringing.to_ring(connection, beside=job)) == WINDOW
    rung: list[int] = []
    parts = SimpleNamespace(
        database=database,
        stopping=Event(),
        settings=SimpleNamespace(lease_seconds=60),
        owner="test",
        cleaning=None,
        signals=SimpleNamespace(ring=lambda rings: rung.extend(ring.step for ring in rings), tell=lambda _job, **_: None),
    )
    lease = claimed(database, step_ids(database, job)[0])
    follow = _commit(parts, lease, partial(chunks.fail_too_large, lease=lease))
    assert [turn.lease.kind for turn in follow] == ["cleanup"]
    assert set(rung) <= set(step_ids(database, other))
    assert len(rung) == WINDOW - 1
