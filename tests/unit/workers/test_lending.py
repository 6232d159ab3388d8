from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from workers.lending import SLOW_SECONDS, Lending, LentPlaces
from workers.wiring import threads_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class House:
    """Steps that wait for images. `places` is how many spare threads may work."""

    def __init__(self, *, most: int = 100) -> None:
        self.clock = Clock()
        self.lent = LentPlaces()
        self.lending = Lending(self.lent, places=most, clock=self.clock)

    def images(self, seconds: float) -> Generator[int]:
        """Images that take so long to come. While one is awaited, the waiting steps are looked at."""
        for number in range(3):
            self.clock.now += seconds
            self.lending.look()
            yield number

    def wait(self, account: str) -> Iterator[int]:
        """Has a step wait for an image that does not come before `clock` is late."""
        return self.lending.watched(self.images(SLOW_SECONDS + 1), account=account)

    def places(self) -> int:
        taken = 0
        while self.lent.acquire(timeout=0):
            taken += 1
        for _ in range(taken):
            self.lent.release()
        return taken


def within(house: House, accounts: list[str]) -> list[int]:
    """How many places are lent after each of these accounts has one more step that waits, all of them at the same time."""
    seen: list[int] = []

    def inner(rest: list[str]) -> Generator[int]:
        house.clock.now += SLOW_SECONDS + 1
        house.lending.look()
        seen.append(house.places())
        if rest:
            yield from house.lending.watched(inner(rest[1:]), account=rest[0])
        yield 0

    list(house.lending.watched(inner(accounts[1:]), account=accounts[0]))
    return seen


def test_a_step_that_waits_for_long_lends_its_place_until_its_image_comes():
    house = House()
    lent = []
    for _ in house.wait("a"):
        lent.append(house.places())
    assert lent == [0, 0, 0]  # each image has come
    assert within(house, ["a", "a"]) == [1, 2]
    assert house.places() == 0


def test_a_step_whose_images_come_soon_lends_nothing():
    house = House()
    seen = [house.places() for _ in house.lending.watched(house.images(SLOW_SECONDS / 2), account="a")]
    assert seen == [0, 0, 0]


def test_a_step_that_waits_for_long_says_so_also_when_no_place_can_be_lent():
    house, said = House(most=0), []
    assert list(house.lending.watched(house.images(SLOW_SECONDS / 2), account="a", on_wait=lambda: said.append(1))) == [0, 1, 2]
    assert said == []
    list(house.lending.watched(house.images(SLOW_SECONDS + 1), account="a", on_wait=lambda: said.append(1)))
    assert said == [1, 1, 1]


def test_an_account_lends_half_of_the_places_and_the_next_one_still_finds_some():
    assert within(House(most=8), ["a"] * 6 + ["b"] * 3) == [1, 2, 3, 4, 4, 4, 5, 6, 6]


def test_a_place_that_is_taken_back_while_its_spare_thread_works_is_gone_when_that_thread_has_ended_its_step():
    lent = LentPlaces()
    lent.lend()
    assert lent.acquire(timeout=0)
    lent.take_back()
    lent.release()
    assert not lent.acquire(timeout=0)
    lent.lend()
    assert lent.acquire(timeout=0)


def test_without_spare_threads_the_images_come_as_they_are():
    assert list(Lending().watched((number for number in range(3)), account="a")) == [0, 1, 2]


@pytest.mark.parametrize(("threads", "every", "waited"), [(1, 1, 1), (2, 1, 2), (4, 3, 4), (8, 6, 8), (40, 30, 40)])
def test_steps_whose_caller_waits_have_threads_of_their_own(threads, every, waited):
    assert threads_of(threads) == (every, waited)


def test_nobody_looks_while_no_step_waits():
    lending = Lending(LentPlaces(), places=1)
    assert not lending.wait_for_steps(0)

    def values() -> Generator[bool]:
        yield lending.wait_for_steps(0)

    assert list(lending.watched(values(), account="a")) == [True]
    assert not lending.wait_for_steps(0)
