"""The plan of several hosts: the same seed gives the same plan, and each job and picture is there once."""

from __future__ import annotations

import pytest

from tests.hosts.plan import CALM_SECONDS, LONG, make_plan

SEEDS = range(1, 20)


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_a_plan(seed, short):
    plan = make_plan(seed, short=short)
    assert plan == make_plan(seed, short=short)
    assert len({job.name for job in plan.jobs}) == len(plan.jobs)
    ordinary = [number for job in plan.jobs if not job.cache for number in job.numbers]
    assert len(set(ordinary)) == len(ordinary)
    assert set(plan.poison) | plan.blocked <= {number for job in plan.jobs for number in job.numbers}
    assert not set(plan.poison) & plan.blocked
    assert all(job.missing <= set(job.numbers) for job in plan.jobs)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_long_form_has_each_kind_of_fault_as_often_as_it_should(seed):
    plan = make_plan(seed, short=False)
    assert plan.kinds == {kind: times for kind, (times, _) in LONG.items()}
    assert all(fault.at > 0 and fault.at + fault.seconds < plan.seconds for fault in plan.faults)


def test_the_short_form_ends_before_its_last_jobs_are_late():
    plan = make_plan(1, short=True)
    assert max(fault.at + fault.seconds for fault in plan.faults) <= plan.seconds
    assert max(job.at for job in plan.jobs) <= plan.seconds - CALM_SECONDS
    assert {job.engine for job in plan.jobs} == {"gemini"}
