from __future__ import annotations

from workers.webhook_places import BUSY_SECONDS, MOST_BUSY_SECONDS, WebhookPlaces


def takes(places: WebhookPlaces, account: str) -> int:
    """How many places the account gets if it takes all that it can."""
    taken = 0
    while places.take(account):
        taken += 1
    return taken


def test_an_account_gets_half_of_the_places_and_each_further_one_still_finds_some():
    places = WebhookPlaces(24, of_host=10)
    assert [takes(places, account) for account in ("a", "b", "c")] == [12, 6, 3]
    assert places.take("d")


def test_a_place_that_comes_free_goes_to_the_account_that_holds_none():
    places = WebhookPlaces(8, of_host=8)
    assert all(places.take(account) for account in "abcdefgh")
    assert not places.take("other")
    places.give_back("a")
    assert not places.take("b")
    assert places.take("other")


def test_one_receiver_gets_a_part_of_the_accounts_places_and_the_next_receiver_finds_some():
    places = WebhookPlaces(24, of_host=10)
    taken = sum(places.take_host("a", "silent.example") for _ in range(20))
    assert taken == 10
    assert places.take_host("a", "other.example")
    assert places.take_host("b", "silent.example")
    places.give_back_host("a", "silent.example", seconds=1.0)
    assert places.take_host("a", "silent.example")


def test_an_account_whose_receivers_take_long_tries_again_later_than_one_whose_receivers_are_quick():
    now = [0.0]
    places = WebhookPlaces(24, of_host=10, clock=lambda: now[0])
    for account in ("slow", "quick"):
        assert places.take(account)
        assert places.take(account)
        assert places.take_host(account, "a.example")
    now[0] = 3.0
    assert places.wait("slow") == 3.0  # none of its calls has ended for so long
    places.give_back_host("quick", "a.example", seconds=0.1)
    assert places.wait("quick") == places.wait("unknown") == BUSY_SECONDS
    now[0] = 15.0
    places.give_back_host("slow", "a.example", seconds=15.0)
    assert places.wait("slow") == MOST_BUSY_SECONDS
    places.give_back("slow")
    places.give_back("slow")
    assert places.wait("slow") == BUSY_SECONDS  # what an account without calls once took is forgotten
