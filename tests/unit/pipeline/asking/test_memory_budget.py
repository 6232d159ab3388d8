from __future__ import annotations

import threading

import pytest

from pipeline.asking.memory_budget import MemoryBudget
from pipeline.ports import ModelUnavailable


def test_what_fits_goes_together_and_what_does_not_frees_its_thread():
    budget = MemoryBudget(100, patience=0.01)
    with budget(60), budget(40), pytest.raises(ModelUnavailable), budget(1):
        pass
    with budget(100):
        pass


def test_what_is_larger_than_the_room_has_it_to_itself():
    budget = MemoryBudget(100, patience=0.01)
    with budget(500), pytest.raises(ModelUnavailable), budget(1):
        pass
    with budget(1), pytest.raises(ModelUnavailable), budget(500):
        pass


def test_an_error_gives_the_room_back():
    budget = MemoryBudget(100, patience=0.01)
    with pytest.raises(ZeroDivisionError), budget(100):
        raise ZeroDivisionError
    with budget(100):
        pass


def test_who_waits_is_let_in_as_soon_as_there_is_room():
    budget = MemoryBudget(100, patience=20)
    entered = threading.Event()

    def second() -> None:
        with budget(50):
            entered.set()

    with budget(100):
        thread = threading.Thread(target=second)
        assert not budget.is_wanted()
        thread.start()
        while not budget.is_wanted():
            threading.Event().wait(0.001)
        assert not entered.is_set()
    assert entered.wait(20)
    thread.join()
    assert not budget.is_wanted()
