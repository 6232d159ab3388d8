"""Whose batch starts its next fetch from a server."""

from __future__ import annotations

from pipeline.fetch.batch import FetchBatch
from pipeline.fetch.line import Line
from pipeline.turns import working_for

X, Y = ("x.test", 80), ("y.test", 80)


def batch(account, job, *urls):
    with working_for(account, job):
        return FetchBatch(enumerate(urls or ["http://x.test/"]), allow=(), total=1, parallel=1, timeout=1.0)


def line_of(*batches):
    line = Line()
    for each in batches:
        line.add(each)
    return line


def order_at(line, server=X):
    """The batches in the order in which they would be asked whether they may start."""
    asked = []
    assert line.next_at(server, asked.append) is None
    return asked


def test_a_jobs_batches_go_in_the_order_in_which_they_were_made():
    first, second, third = (batch("a", "1") for _ in range(3))
    line = line_of(second, third)
    line.add(first)  # it waits again, after a redirect for example
    line.had_turn(second, X)
    assert order_at(line) == [first, second, third]
    assert line.next_at(X, lambda each: each is not first) is second


def test_accounts_and_then_their_jobs_take_turns():
    one, one_more, two, other = batch("a", "1"), batch("a", "1"), batch("a", "2"), batch("b", "3")
    line = line_of(one, one_more, two, other)
    line.had_turn(one, X)
    assert order_at(line) == [other, two, one, one_more]
    line.had_turn(other, X)
    assert order_at(line) == [two, one, one_more, other]


def test_a_turn_at_one_server_costs_none_at_another():
    busy = batch("a", "1", "http://x.test/", "http://y.test/")
    waits, other = batch("a", "2", "http://y.test/"), batch("b", "3", "http://y.test/")
    line = line_of(busy, waits, other)
    for _ in range(3):
        line.had_turn(busy, X)
    assert order_at(line, Y) == [busy, waits, other]
    line.had_turn(busy, Y)
    assert order_at(line, Y) == [other, waits, busy]


def test_servers_take_turns():
    both = batch("a", "1", "http://x.test/", "http://y.test/")
    line = line_of(both)
    line.had_turn(both, X)
    assert line.servers() == [Y, X]
    line.had_turn(batch("b", "2"), Y)
    assert line.servers() == [Y, X]


def test_a_batch_waits_once_at_a_server_and_goes_without_a_trace():
    one, two = batch("a", "1", "http://x.test/", "http://y.test/"), batch("a", "2")
    line = line_of(one, one, two)
    assert line.servers() == [X, Y]
    assert order_at(line) == [one, two]
    line.discard(one, X)
    line.discard(one, X)
    assert (order_at(line), order_at(line, Y)) == ([two], [one])
    for each in (one, two):
        line.forget(each)
    line.had_turn(one, X)
    assert line.servers() == []


def test_the_line_may_change_while_it_is_gone_through():
    batches = [batch("a", "1") for _ in range(3)]
    line = line_of(*batches)
    line.next_at(X, lambda each: line.discard(each, X))
    assert line.servers() == []
