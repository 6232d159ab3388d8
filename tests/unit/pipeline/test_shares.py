"""The rule by which accounts share places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.shares import may_take

TOTALS = st.integers(2, 700)
TIMES = st.integers(1, 5)


def most(free: int, times: int) -> int:
    """How many of the free places a new account gets, one after another."""
    held = 0
    while may_take(held=held, free=free - held, times=times):
        held += 1
    return held


@given(total=TOTALS, times=TIMES)
def test_an_account_alone_gets_its_part_and_leaves_a_place(total, times):
    held = most(total, times)
    assert held == max(times * total // (times + 1), 1)
    assert may_take(held=0, free=total - held, times=times)


@given(total=TOTALS, times=TIMES, counts=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=200))
def test_whatever_is_taken_no_more_is_taken_than_there_is_and_who_has_none_gets_what_is_free(total, times, counts):
    held, free = dict.fromkeys("abc", 0), total
    for account, count in counts:
        if may_take(held=held[account], free=free, count=count, times=times):
            first = held[account] == 0
            held[account] += count
            free -= count
            assert free >= 0
            assert first or held[account] <= times * free
        else:
            assert count > free or held[account] > 0
