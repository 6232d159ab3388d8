"""The fake of a server's cheap tier: drawn times, sheds, and calls that are served as standard ones."""

from __future__ import annotations

import pytest

from tests.fakes.flex import FlexServer
from tests.fakes.gemini import FakeGemini
from tests.fakes.gemini_client import ask, client_of

MINUTE = 60.0


def drawn(server: FlexServer, calls: int = 1000) -> list:
    return [server.treat(at=float(at)) for at in range(calls)]


def test_the_same_seed_draws_the_same():
    first, same, other = (drawn(FlexServer(seed=seed, shed=0.3, standard=0.3)) for seed in (1, 1, 2))
    assert first == same != other


def test_answers_take_one_to_fifteen_minutes():
    times = [outcome.seconds for outcome in drawn(FlexServer())]
    assert MINUTE <= min(times) < 2 * MINUTE
    assert 14 * MINUTE < max(times) <= 15 * MINUTE


def test_calls_are_shed_and_served_as_standard_at_the_rates_that_are_asked_for():
    outcomes = drawn(FlexServer(shed=0.25, standard=0.5))
    answered = [outcome for outcome in outcomes if not outcome.shed]
    assert 650 < len(answered) < 850
    assert 0.4 < sum(outcome.served_as_standard for outcome in answered) / len(answered) < 0.6
    assert {outcome.shed for outcome in outcomes} == {0, 429, 503}


def test_all_are_shed_while_there_is_no_capacity():
    outcomes = drawn(FlexServer(has_capacity=lambda at: not 100 <= at < 200), 300)
    assert [at for at, outcome in enumerate(outcomes) if outcome.shed] == list(range(100, 200))


@pytest.mark.parametrize("standard", [0.0, 1.0])
def test_the_fake_gemini_says_how_it_served_a_call_and_waits_a_part_of_the_time(standard):
    with FakeGemini() as fake, client_of(fake) as client:
        fake.flex = FlexServer(standard=standard, factor=0.0001)
        ask(client, 7, service_tier="flex")
        assert (fake.calls[0].tier, fake.calls[0].served) == ("flex", "standard" if standard else "flex")
        assert fake.faults == fake.refused == []
