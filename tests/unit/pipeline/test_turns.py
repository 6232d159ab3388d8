from __future__ import annotations

import threading
from contextlib import ExitStack

from pipeline.turns import Turns, current_account, working_for


class Line:
    """Accounts that wait for a place. `order` is the accounts in the order in which they got one."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._threads: list[threading.Thread] = []
        self.order: list[str] = []

    def join(self, account: str) -> None:
        """Has a thread wait for a place of the account. It gives the place back at once."""
        thread = threading.Thread(target=self._pass, args=(account,))
        before = self._turns.waiting()
        thread.start()
        self._threads.append(thread)
        while self._turns.waiting() == before:
            thread.join(0.001)

    def _pass(self, account: str) -> None:
        with self._turns.place(account):
            self.order.append(account)

    def end(self) -> list[str]:
        for thread in self._threads:
            thread.join()
        return self.order


def test_an_account_that_is_alone_gets_all_places():
    turns = Turns(3)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(turns.place("a"))
        assert turns.waiting() == 0


def test_a_place_goes_to_the_account_that_holds_the_fewest_however_many_of_another_wait():
    turns = Turns(1)
    line = Line(turns)
    with turns.place("greedy"):
        for account in ("greedy", "greedy", "greedy", "other"):
            line.join(account)
    assert line.end().index("other") <= 1


def test_accounts_that_hold_as_many_places_take_turns():
    turns = Turns(1)
    line = Line(turns)
    with turns.place("third"):
        for account in ("a", "a", "a", "b", "b", "b"):
            line.join(account)
    assert line.end() == ["a", "b", "a", "b", "a", "b"]


def test_a_thread_works_for_the_account_that_is_named_and_for_none_after_that():
    with working_for("a"):
        assert current_account() == "a"
    assert current_account() == ""
