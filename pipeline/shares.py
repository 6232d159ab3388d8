"""The rule by which accounts share places, so that one account can't take all of them.

The rule needs no list of accounts: it looks only at what an account holds and at what is free. It is used for waiting requests and
bodies at the front door (api/places.py), for lookups of names, for webhooks and for the lent threads of workers.
"""

from __future__ import annotations


def may_take(*, held: int, free: int, count: int = 1, times: int = 1) -> bool:
    """Whether an account that holds `held` places may take `count` more of the `free` ones.

    An account that holds none may take free places. Any other account may then hold at most `times` as many places as it leaves
    free. So an account that is alone gets `times / (times + 1)` of all places, and the next account finds a place at once.
    """
    left = free - count
    return left >= 0 and (held == 0 or held + count <= times * left)
