"""A seed of the torture stands for one plan, and each plan has all that the report promises."""

from __future__ import annotations

import pytest

from tests.torture.plan import Plan, make_plan
from tests.torture.planned_faults import (
    BACK_SECONDS,
    CALLED,
    DISKS,
    EMBEDDED,
    FAULTS,
    LAST,
    MIGRATION,
    SECONDS,
    SHORT_ALWAYS,
    STANDSTILLS,
)
from tests.torture.planned_jobs import POISONS

SEEDS = range(5)
KINDS = {kind for known in FAULTS.values() for kind in known}


def plan(seed: int, *, short: bool = False, processes_only: bool = False, disks: bool = True) -> Plan:
    return make_plan(seed, short=short, processes_only=processes_only, disks=disks)


@pytest.mark.parametrize("short", [False, True])
def test_a_seed_stands_for_one_plan(short):
    assert plan(7, short=short) == plan(7, short=short)
    assert plan(7, short=short) != plan(8, short=short)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_has_the_load_and_a_hundred_faults_of_every_kind(seed):
    made = plan(seed)
    sizes = sorted(len(job.numbers) for job in made.jobs)
    assert sizes == [3] * 3 + [4] * 162 + [40] * 42 + [200] * 9 + [3000]
    assert set(made.poison.values()) == set(POISONS)
    assert len(made.faults) == 100
    assert set(made.kinds) == KINDS | {MIGRATION}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_plan_has_faults_of_each_family(seed):
    kinds = set(plan(seed, short=True).kinds)
    assert all(kinds & set(known) for known in FAULTS.values())
    assert kinds >= set(SHORT_ALWAYS)


@pytest.mark.parametrize("seed", SEEDS)
def test_on_sqlite_a_plan_has_only_the_faults_of_processes_and_their_disks(seed):
    for short in (False, True):
        assert set(plan(seed, short=short, processes_only=True).kinds) == set(EMBEDDED)
        assert set(plan(seed, short=short, processes_only=True, disks=False).kinds) == set(EMBEDDED) - DISKS


@pytest.mark.parametrize("seed", range(40))
def test_in_a_short_run_the_receiver_fails_when_jobs_have_ended(seed):
    made = plan(seed, short=True)
    assert all(fault.at > made.seconds * 0.4 for fault in made.faults if fault.kind in FAULTS["receiver"])


@pytest.mark.parametrize("seed", range(40))
def test_each_kind_that_needs_calls_happens_once_while_the_service_works(seed):
    faults = [fault for fault in plan(seed).faults if fault.at >= 0]
    away = [(fault.at, fault.at + fault.seconds + BACK_SECONDS) for fault in faults if fault.kind in STANDSTILLS]
    met = {fault.kind for fault in faults[: -len(LAST)] if not any(start <= fault.at < end for start, end in away)}
    assert met >= {kind for family in CALLED for kind in FAULTS[family] if kind not in SECONDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fault_lasts_when_the_last_ones_begin(seed):
    made = plan(seed)
    begins = made.seconds + LAST[0].at
    last = [fault for fault in made.faults if fault.at >= begins]
    assert [fault.kind for fault in last] == [fault.kind for fault in LAST]
    assert all(fault.at + fault.seconds <= begins for fault in made.faults if fault not in last)
