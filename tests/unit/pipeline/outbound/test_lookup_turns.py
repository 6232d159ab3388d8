from __future__ import annotations

from collections import Counter

from pipeline.outbound.lookup_turns import Asker, Lookup, LookupTurns, parent_of


def waiting(turns: LookupTurns, asker: Asker, count: int, *, parent: str = "") -> list[Lookup]:
    """`count` lookups of the asker, each of a domain of its own, or all of one parent domain."""
    lookups = [Lookup(f"n{index}.{parent or f'd{index}.example'}", 443) for index in range(count)]
    for lookup in lookups:
        turns.add(lookup, asker)
    return lookups


def started(turns: LookupTurns) -> list[Lookup]:
    """Every lookup that may start now, in order."""
    found = []
    while (lookup := turns.start_next()) is not None:
        found.append(lookup)
    return found


def askers(lookups: list[Lookup]) -> list[str]:
    return [lookup.started_for.account for lookup in lookups if lookup.started_for is not None]


def test_an_account_gets_half_of_the_places_and_the_next_account_still_finds_some():
    turns = LookupTurns(32)
    for job in range(20):
        waiting(turns, Asker("greedy", f"job{job}"), 100)
    assert len(started(turns)) == 16
    waiting(turns, Asker("other", "job"), 3, parent="one.example")
    assert askers(started(turns)) == ["other"] * 3


def test_a_job_and_a_parent_domain_get_a_part_of_their_accounts_places():
    turns = LookupTurns(32)
    waiting(turns, Asker("a", "one"), 100)
    waiting(turns, Asker("a", "two"), 100, parent="dead.example")
    jobs = Counter(lookup.started_for.job for lookup in started(turns) if lookup.started_for)
    assert jobs == {"one": 10, "two": 6}


def test_accounts_and_their_jobs_take_turns():
    turns = LookupTurns(64)
    waiting(turns, Asker("a", "1"), 3)
    waiting(turns, Asker("a", "2"), 3)
    waiting(turns, Asker("b", "3"), 3)
    order = [lookup.started_for for lookup in started(turns)]
    assert [asker.account for asker in order[:6] if asker] == ["a", "b"] * 3
    assert [asker.job for asker in order if asker and asker.account == "a"] == ["1", "2"] * 3


def test_a_name_that_waits_in_a_long_queue_starts_in_the_turn_of_whoever_asks_for_it_next():
    turns = LookupTurns(8)
    shared = waiting(turns, Asker("greedy", "job"), 100)[-1]
    started(turns)
    turns.add(shared, Asker("other", "job"))
    assert started(turns) == [shared]
    assert shared.started_for == Asker("other", "job")


def test_a_dropped_lookup_never_starts_and_one_that_has_ended_frees_its_place():
    turns = LookupTurns(2)
    first, second, third = waiting(turns, Asker("a", "job"), 3)
    assert started(turns) == [first]
    turns.drop(second)
    assert started(turns) == []
    turns.ended(first)
    assert started(turns) == [third]


def test_names_that_share_their_last_two_labels_have_one_parent():
    assert parent_of("a.b.dead.example") == parent_of("dead.example.") == "dead.example"
    assert parent_of("localhost") == "localhost"
