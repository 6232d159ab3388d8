"""Of one account so many chunks are staged at once, in their order, and no account waits for another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.rows import eventually
from workers.staging_turns import StagingTurns


class Chunk(threading.Thread):
    """A chunk that waits for its turn and holds it until it is let go."""

    def __init__(self, turns: StagingTurns, account: str) -> None:
        super().__init__(daemon=True)
        self.has_turn, self._ends = threading.Event(), threading.Event()
        self._turns, self._account = turns, account
        self.pass_on: Callable[[], None] = lambda: None
        self.start()

    def run(self) -> None:
        with self._turns.turn(self._account) as self.pass_on:
            self.has_turn.set()
            assert self._ends.wait(20)

    def end(self) -> None:
        self._ends.set()
        self.join(20)


def queued(turns: StagingTurns, account: str, chunks: int) -> list[Chunk]:
    """So many chunks, which wait in this order."""
    found = []
    for _ in range(chunks):
        before = turns.waiting(account)
        found.append(Chunk(turns, account))
        eventually(lambda: found[-1].has_turn.is_set() or turns.waiting(account) > before)  # noqa: B023 - called at once
    return found


def with_turn(chunks: list[Chunk]) -> list[bool]:
    return [chunk.has_turn.is_set() for chunk in chunks]


def test_chunks_of_an_account_come_one_after_the_other_in_their_order():
    turns = StagingTurns(2)
    chunks = queued(turns, "a", 5)
    assert with_turn(chunks) == [True, True, False, False, False]
    chunks[1].end()
    assert chunks[2].has_turn.wait(20)
    assert with_turn(chunks) == [True, True, True, False, False]
    for chunk in (chunks[0], chunks[2], chunks[3], chunks[4]):
        assert chunk.has_turn.wait(20)
        chunk.end()
    assert turns.waiting("a") == 0


def test_no_account_waits_for_another_one():
    turns = StagingTurns(1)
    large = queued(turns, "a", 3)
    (small,) = queued(turns, "b", 1)
    assert (with_turn(large), with_turn([small])) == ([True, False, False], [True])
    for chunk in (*large, small):
        chunk.end()


def test_a_turn_that_is_passed_on_goes_to_the_next_chunk_once():
    turns = StagingTurns(1)
    chunks = queued(turns, "a", 3)
    chunks[0].pass_on()
    chunks[0].pass_on()
    assert chunks[1].has_turn.wait(20)
    chunks[0].end()
    assert with_turn(chunks) == [True, True, False]
    for chunk in chunks[1:]:
        chunk.end()
    (alone,) = queued(turns, "a", 1)
    assert with_turn([alone]) == [True]
    alone.end()


def test_a_chunk_that_fails_gives_its_turn_back():
    turns = StagingTurns(1)
    for _ in range(3):
        with pytest.raises(OSError, match="full"), turns.turn("a"):
            raise OSError("full")


def test_without_a_number_nobody_waits():
    turns = StagingTurns()
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(turns.turn("a"))
