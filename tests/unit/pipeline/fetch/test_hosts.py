"""How many fetches a server gets at once."""

from __future__ import annotations

import pytest

from pipeline.fetch.hosts import HostSlots

SERVER, OTHER = ("a.test", 80), ("b.test", 80)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slots(clock):
    return HostSlots(256, silence=20.0, clock=clock)


def fill(slots, server=SERVER):
    """Takes all slots there are; how many that were."""
    count = 0
    while slots.take(server):
        count += 1
    return count


def one_round(slots, count, *, keeps=False):
    """So many requests are answered, and give their slots back."""
    for _ in range(count):
        slots.answered(SERVER, 0.05, keeps=keeps)
    give_back(slots, count)


def give_back(slots, count):
    for _ in range(count):
        slots.give_back(SERVER)


def test_a_server_that_nothing_is_known_of_gets_8_and_each_server_its_own(slots):
    assert fill(slots) == fill(slots, OTHER) == fill(slots, ("a.test", 443)) == 8


@pytest.mark.parametrize(("keeps", "limits"), [(False, [8, 16, 32, 64, 128, 256]), (True, [8, 24, 72, 216, 256])])
def test_the_limit_grows_with_each_round_of_answers_up_to_the_most(slots, keeps, limits):
    rounds = []
    while not rounds or rounds[-1] < 256:
        rounds.append(fill(slots))
        one_round(slots, rounds[-1], keeps=keeps)
    assert rounds == limits
    assert fill(slots) == 256


def test_the_most_may_be_less_than_what_others_begin_with(clock):
    slots = HostSlots(3, silence=20.0, clock=clock)
    assert fill(slots) == 3
    one_round(slots, 3)
    assert fill(slots) == 3


def test_answers_to_few_requests_at_once_tell_nothing_of_more(slots):
    for _ in range(100):
        assert slots.take(SERVER)
        one_round(slots, 1)
    assert fill(slots) == 8


def test_connections_that_fail_together_lower_the_limit_once_and_later_ones_again(slots, clock):
    begun = clock.now
    assert fill(slots) == 8
    clock.now += 1
    for _ in range(5):
        slots.connect_failed(SERVER, begun)
    give_back(slots, 8)
    assert fill(slots) == 5
    clock.now += 1
    slots.connect_failed(SERVER, clock.now)
    give_back(slots, 5)
    assert fill(slots) == 3


def test_after_a_failed_connection_the_limit_grows_by_one_a_round(slots, clock):
    fill(slots)
    slots.connect_failed(SERVER, clock.now)
    give_back(slots, 8)
    counts = []
    for _ in range(4):
        counts.append(fill(slots))
        one_round(slots, counts[-1])
    assert counts == [5, 6, 7, 8]


def test_a_server_that_failed_and_answers_later_the_more_it_is_asked_gets_4(slots, clock):
    fill(slots)
    slots.connect_failed(SERVER, clock.now)
    give_back(slots, 8)
    slots.answered(SERVER, 0.01)
    for _ in range(50):
        count = fill(slots)
        for _ in range(count):
            slots.answered(SERVER, 0.01 * count)
        give_back(slots, count)
        clock.now += 1
        if count > 4:
            slots.connect_failed(SERVER, clock.now)
    assert count in (3, 4)


def test_one_connection_is_always_tried(slots, clock):
    for _ in range(50):
        clock.now += 1
        slots.connect_failed(SERVER, clock.now)
    assert fill(slots) == 1


def test_patience_goes_by_what_connections_take_and_doubles_with_each_that_failed(slots):
    assert slots.patience(SERVER, 0) == 1.0
    slots.connected(SERVER, 0.001)
    assert [slots.patience(SERVER, failed) for failed in (0, 1, 2, 3, 9)] == [0.2, 0.4, 0.8, 1.6, 4.0]
    slots.connected(SERVER, 0.1)
    assert slots.patience(SERVER, 0) == pytest.approx(0.6)
    slots.connected(SERVER, None)
    assert slots.patience(SERVER, 0) == pytest.approx(0.6)
    slots.connected(SERVER, 5.0)
    assert slots.patience(SERVER, 0) == 1.0


def test_a_server_without_a_connection_for_20_s_is_silent_for_5_s_and_then_tried_anew(slots, clock):
    slots.connect_failed(SERVER, clock.now)
    clock.now += 19
    slots.connect_failed(SERVER, clock.now)
    assert not slots.is_silent(SERVER)
    clock.now += 1
    assert slots.is_silent(SERVER)
    assert not slots.is_silent(OTHER)
    clock.now += 5
    assert slots.is_silent(SERVER)
    clock.now += 1
    assert not slots.is_silent(SERVER)
    slots.connect_failed(SERVER, clock.now)
    assert not slots.is_silent(SERVER)


@pytest.mark.parametrize("sign", [lambda slots: slots.connected(SERVER, 0.1), lambda slots: slots.answered(SERVER, 0.05)])
def test_one_connection_ends_a_silence(slots, clock, sign):
    slots.connect_failed(SERVER, clock.now)
    clock.now += 15
    sign(slots)
    clock.now += 10
    assert not slots.is_silent(SERVER)


def test_what_was_learned_is_forgotten_after_a_minute_without_a_fetch(slots, clock):
    one_round(slots, fill(slots))
    clock.now += 59
    assert fill(slots) == 16
    one_round(slots, 16)
    clock.now += 61
    assert fill(slots) == 8
    clock.now += 100
    slots.answered(SERVER, 0.05)
    slots.take(("c.test", 80))
    one_round(slots, 8)


def test_what_is_known_of_servers_is_bounded_and_those_in_use_are_kept(slots, clock):
    assert fill(slots) == 8
    for number in range(10_000):
        clock.now += 0.001
        slots.take((f"{number}.test", 80))
        slots.give_back((f"{number}.test", 80))
    assert len(slots._servers) <= 4096
    assert not slots.take(SERVER)
