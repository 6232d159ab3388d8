"""The rule by which accounts share places, so that one account can't take all of them.

The rule needs no list of accounts: it looks only at what an account holds and at what is free. It is used for waiting requests and
bodies at the front door (api/places.py), for lookups of names, for webhooks and for the lent threads of workers.
"""

from __future__ import annotations

from collections import Counter


def may_take(*, held: int, free: int, count: int = 1, times: int = 1) -> bool:
    """Whether an account that holds `held` places may take `count` more of the `free` ones.

    An account that holds none may take free places. Any other account may then hold at most `times` as many places as it leaves
    free. So an account that is alone gets `times / (times + 1)` of all places, and the next account finds a place at once.
    """
    left = free - count
    return left >= 0 and (held == 0 or held + count <= times * left)


class SharedPlaces:
    """A number of places, shared by the rule. The caller holds a lock."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._held: Counter[str] = Counter()

    def take(self, account: str) -> bool:
        """Takes a place for the account. Returns whether there was one."""
        if not may_take(held=self._held.get(account, 0), free=self._free):
            return False
        self._free -= 1
        self._held[account] += 1
        return True

    def give_back(self, account: str) -> None:
        self._free += 1
        self._held[account] -= 1
        if not self._held[account]:
            del self._held[account]

    def holds(self, account: str) -> bool:
        """Whether the account holds a place."""
        return account in self._held
