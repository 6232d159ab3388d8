"""Places of which one account can't take all."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.places import Places


def taken(places: Places, account: str) -> int:
    """How many places the account gets when it takes as many as it can."""
    count = 0
    while places.take(account):
        count += 1
    return count


@pytest.mark.parametrize(("total", "share"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (600, 450)])
def test_one_account_alone_gets_three_quarters(total, share):
    assert taken(Places(total), "a") == share


def test_each_further_account_gets_three_quarters_of_the_rest():
    places = Places(64)
    assert [taken(places, account) for account in "abcd"] == [48, 12, 3, 1]
    assert not places.take("e")
    assert places.free == 0


@given(total=st.integers(2, 50), count=st.integers(1, 8))
def test_whatever_one_account_takes_another_still_gets_a_place(total, count):
    places = Places(total)
    while places.take("a", min(count, total - 1)):
        pass
    assert places.take("b")


def test_what_is_given_back_can_be_taken_again():
    places = Places(1)
    for account in "aba":
        with places.held(account):
            assert not places.take("c")
    assert places.free == 1


def test_who_waits_for_a_place_gets_it_when_it_is_given_back():
    places = Places(1)
    assert places.take("a")
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(places.take("b", seconds=60)))
    waiting.start()
    places.give_back("a")
    waiting.join()
    assert got == [True]
