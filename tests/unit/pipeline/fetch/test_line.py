"""Whose batch starts its fetches next."""

from __future__ import annotations

from pipeline.fetch.batch import FetchBatch
from pipeline.fetch.line import Line
from pipeline.turns import working_for


def batch(account, job):
    with working_for(account, job):
        return FetchBatch([], allow=(), total=1, parallel=1, timeout=1.0)


def line_of(*batches):
    line = Line()
    for each in batches:
        line.add(each)
    return line


def test_a_jobs_batches_go_in_the_order_in_which_they_were_made():
    first, second, third = (batch("a", "1") for _ in range(3))
    line = line_of(second, third)
    line.add(first)  # it waits again, after a redirect for example
    line.had_turn(second)
    assert list(line.in_turn()) == [first, second, third]


def test_accounts_and_then_their_jobs_take_turns():
    one, one_more, two, other = batch("a", "1"), batch("a", "1"), batch("a", "2"), batch("b", "3")
    line = line_of(one, one_more, two, other)
    line.had_turn(one)
    assert list(line.in_turn()) == [other, two, one, one_more]
    line.had_turn(other)
    assert list(line.in_turn()) == [two, one, one_more, other]


def test_a_batch_waits_once_and_goes_without_a_trace():
    one, two = batch("a", "1"), batch("a", "2")
    line = line_of(one, one, two)
    assert list(line.in_turn()) == [one, two]
    for each in (one, two, two):
        line.discard(each)
    line.had_turn(one)
    assert list(line.in_turn()) == []
    assert not line._accounts


def test_the_line_may_change_while_it_is_gone_through():
    batches = [batch("a", "1") for _ in range(3)]
    line = line_of(*batches)
    for each in line.in_turn():
        line.discard(each)
    assert list(line.in_turn()) == []
