from __future__ import annotations

import threading

import pytest

from pipeline.asking.memory_budget import Room
from pipeline.ports import ModelUnavailable


def test_what_fits_goes_together_and_what_does_not_frees_its_thread():
    room = Room(100, patience=0.01)
    with room(60), room(40), pytest.raises(ModelUnavailable), room(1):
        pass
    with room(100):
        pass


def test_what_is_larger_than_the_room_has_it_to_itself():
    room = Room(100, patience=0.01)
    with room(500), pytest.raises(ModelUnavailable), room(1):
        pass
    with room(1), pytest.raises(ModelUnavailable), room(500):
        pass


def test_an_error_gives_the_room_back():
    room = Room(100, patience=0.01)
    with pytest.raises(ZeroDivisionError), room(100):
        raise ZeroDivisionError
    with room(100):
        pass


def test_who_waits_is_let_in_as_soon_as_there_is_room():
    room = Room(100, patience=20)
    entered = threading.Event()

    def second() -> None:
        with room(50):
            entered.set()

    with room(100):
        thread = threading.Thread(target=second)
        assert not room.is_wanted()
        thread.start()
        while not room.is_wanted():
            threading.Event().wait(0.001)
        assert not entered.is_set()
    assert entered.wait(20)
    thread.join()
    assert not room.is_wanted()
