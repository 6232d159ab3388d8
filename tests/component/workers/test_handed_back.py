"""Steps that were handed back go on although no supervisor runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from storage.queue import steps
from tests.rows import claimed, eventually, new_job, step_ids
from workers import handed_back
from workers.handed_back import HandedBack


@pytest.fixture
def house(make_harness, monkeypatch):
    monkeypatch.setattr(handed_back, "SUPERVISOR_SECONDS", 0.0)
    return make_harness(workers_count=0)


@pytest.fixture
def announcer(house) -> Iterator[HandedBack]:
    stopping = threading.Event()
    yield HandedBack(house.database, house.signals, stopping)
    stopping.set()


def hand_back(house, *, delay_ms: int = 0) -> int:
    job = new_job(house.database, house.account)
    [step] = step_ids(house.database, job)
    lease = claimed(house.database, step)
    with house.database.write() as connection:
        steps.hand_back(connection, lease, delay_ms=delay_ms, counts=False)
    return step


def test_a_step_is_announced_when_it_is_due(house, announcer):
    step = hand_back(house, delay_ms=50)
    announcer.expect(0.05)
    assert house.signals.rung.get(timeout=20) == step
    assert house.signals.rung.empty()


def test_what_a_supervisor_has_announced_is_not_announced_again(house, announcer):
    step = hand_back(house)
    with house.database.write() as connection:
        house.signals.ring(handed_back.ringing.to_ring(connection))
    announcer.expect(0.0)
    eventually(lambda: announcer._due == [])
    later = hand_back(house)
    announcer.expect(0.0)
    assert [house.signals.rung.get(timeout=20) for _ in range(2)] == [step, later]


def test_a_database_that_is_away_for_one_look_is_looked_at_again(house, announcer, monkeypatch):
    step = hand_back(house)
    write, fails = house.database.write, iter([True])

    def once_away():
        if next(fails, False):
            raise handed_back.PartError("away")
        return write()

    monkeypatch.setattr(house.database, "write", once_away)
    announcer.expect(0.0)
    announcer.expect(0.5)
    assert house.signals.rung.get(timeout=20) == step
