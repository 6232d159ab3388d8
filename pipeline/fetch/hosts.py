"""Learns how many fetches each server can take at once. The limit starts low, grows while the server answers, and shrinks when
connections fail.

The listen queue of a small server holds a handful of connections. The server's system drops further ones silently, and ours sends
them again only after 1 s, 3 s and 7 s. The limit of a server therefore grows and shrinks as TCP's congestion window does. It
doubles with each round of answers, until a connection fails or the growth delays the answers. If the server keeps its connections,
the limit triples: each answer is then followed by two new connections, as it is at a server that closes its own. The limit is cut
when a connection fails. After that it grows by one a round, but only while the growth does not delay the answers (as in TCP Vegas),
because a busy server should get no more requests. All batches share the limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.outbound.addresses import Target

Server = tuple[str, int]  #: a host and a port

_FIRST = 8.0  # fetches at once from a server about which nothing is known
# A failed connection multiplies the limit by one of these. The first is for a busy server, whose answers come later the more it is
# asked. The second is for a server that is not busy but takes connections slowly; with a half, such a server was measured to take
# a third more time.
_CUT_BUSY, _CUT = 0.5, 0.7
# A server counts as busy if more requests than this wait at it, not counting those that it works on. If a quarter of all its
# requests is more than this, the quarter counts instead.
_WAITING = 3.0
# The quickest time so far is multiplied by this with each answer, because servers change and one lucky answer must not count forever.
_DRIFT = 1.002
_LEAST_PATIENCE, _FIRST_PATIENCE, _MOST_PATIENCE = 0.2, 1.0, 4.0  # seconds
_KEPT = 4096  # the most servers that are remembered
_KEEP_SECONDS = 60.0  # how long a server is remembered after the last fetch from it
_KEEP_SILENCE_SECONDS = 5.0  # how long nothing is fetched from a server that was found silent


@dataclass(kw_only=True, slots=True)
class _Learned:
    """What is known of one server."""

    limit: float  #: fetches at once
    used: float  #: when a slot was last taken
    doubles: bool = True  #: true: the limit grows with each answer; false: by one with each round of answers
    taken: int = 0  #: fetches that are running
    full: bool = False  #: whether the last fetch that wanted a slot got none
    cut: float = -math.inf  #: when the limit was last lowered
    answers: int = 0  #: answers so far
    quickest: float = math.inf  #: seconds of the quickest answer, from the start of its request
    usual: float = 0.0  #: seconds of the latest answers, as a moving average
    last_quickest: float = 0.0  #: seconds of the quickest answer of the last round
    round_quickest: float = math.inf  #: seconds of the quickest answer of this round
    round_left: int = 4  #: answers until this round ends
    connect: float | None = None  #: seconds that a connection takes; None: no connection was made yet
    silent_since: float | None = None  #: when the first connection failed after the last success; None: the last one succeeded


class HostSlots:
    """The slots of all servers. Only the fetching thread uses them. Times are those of the monotonic clock.

    `most`: the most fetches at once from one server. `silence`: seconds without any connection after which a server counts as
    silent. `clock`: returns seconds that never decrease.
    """

    def __init__(self, most: int, *, silence: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = float(most)
        self._silence = silence
        self._servers: dict[Server, _Learned] = {}

    def take(self, server: Server) -> bool:
        """Takes one slot, and returns whether there was one."""
        learned = self._of(server)
        learned.full = learned.taken >= int(learned.limit)
        if learned.full:
            return False
        learned.taken += 1
        learned.used = self._clock()
        return True

    def give_back(self, server: Server) -> None:
        self._servers[server].taken -= 1

    def answers(self, server: Server) -> int:
        """How many answers the server has given so far. Compare it with an earlier number to see whether the server answers."""
        return self._of(server).answers

    def answered(self, server: Server, seconds: float, *, keeps: bool = False) -> None:
        """Records an answer of any kind. `seconds`: the time from the start of its request. `keeps`: the connection can be used again."""
        learned = self._of(server)
        learned.quickest = min(seconds, learned.quickest * _DRIFT)
        learned.usual = 0.8 * learned.usual + 0.2 * seconds if learned.answers > 1 else seconds
        learned.round_quickest = min(seconds, learned.round_quickest)
        learned.round_left -= 1
        if learned.round_left <= 0:
            learned.last_quickest, learned.round_quickest = learned.round_quickest, math.inf
            learned.round_left = max(4, int(learned.limit))
        learned.answers += 1
        learned.silent_since = None
        if learned.full:  # otherwise the limit held nothing back, so the answer does not show that more would work
            # The quickest answer of a round tells of waiting: waiting delays every answer, and heavy work delays only some.
            if learned.doubles and not _is_busy(learned, learned.last_quickest):
                learned.limit = min(self._most, learned.limit + (2.0 if keeps else 1.0))
            elif learned.doubles or not _is_busy(learned, learned.usual):
                learned.limit = min(self._most, learned.limit + 1.0 / learned.limit)

    def connected(self, server: Server, seconds: float | None) -> None:
        """Records a connection. `seconds`: how long it took; None: the time is unknown, because an earlier try may have helped."""
        learned = self._of(server)
        learned.silent_since = None
        if seconds is not None:  # a slower connection counts in full at once, a quicker one moves the average by a tenth
            learned.connect = max(seconds, seconds if learned.connect is None else 0.9 * learned.connect + 0.1 * seconds)

    def connect_failed(self, server: Server, begun: float) -> None:
        """Records that a connection was refused or took too long. `begun`: when it was begun."""
        learned = self._of(server)
        if learned.silent_since is None:
            learned.silent_since = begun
        if begun >= learned.cut:  # a connection begun before the last cut says nothing about the lowered limit
            learned.cut = self._clock()
            learned.limit = max(1.0, learned.limit * (_CUT_BUSY if _is_busy(learned, learned.usual) else _CUT))
            learned.doubles = False

    def patience(self, server: Server, failed: int) -> float:
        """Seconds to wait for a connection before it is given up and tried again. `failed`: how many connections failed before.

        The time depends on how long the server's connections take, as TCP's own retransmission time does once TCP has measured.
        TCP has measured nothing when it connects, so it waits a whole second. For a server nearby that is a thousand times too long.
        """
        connect = self._of(server).connect
        first = _FIRST_PATIENCE if connect is None else min(max(6 * connect, _LEAST_PATIENCE), _FIRST_PATIENCE)
        return float(min(first * 2 ** min(failed, 10), _MOST_PATIENCE))

    def is_silent(self, server: Server) -> bool:
        """Whether the server has accepted no connection for so long that fetches from it fail at once for the next 5 s."""
        learned = self._of(server)
        if learned.silent_since is None:
            return False
        age = self._clock() - learned.silent_since
        if age > self._silence + _KEEP_SILENCE_SECONDS:
            learned.silent_since = None
        return self._silence <= age <= self._silence + _KEEP_SILENCE_SECONDS

    def _of(self, server: Server) -> _Learned:
        learned = self._servers.get(server)
        if learned is not None and learned.taken:
            return learned
        now = self._clock()
        if learned is None or now - learned.used > _KEEP_SECONDS:
            if len(self._servers) >= _KEPT:
                self._forget()
            learned = self._servers[server] = _Learned(limit=min(_FIRST, self._most), used=now)
        return learned

    def _forget(self) -> None:
        """Forgets the servers that were used longest ago, to make room. A server from which something is fetched is kept."""
        idle = sorted((known.used, server) for server, known in self._servers.items() if not known.taken)
        for _, server in idle[: max(0, len(self._servers) - _KEPT // 2)]:
            del self._servers[server]


def _is_busy(learned: _Learned, seconds: float) -> bool:
    """Whether further requests would only wait at the server. `seconds`: how long its answers take now.

    By Little's law, the server works on limit * quickest / seconds requests. The other requests wait.
    """
    return learned.limit * (1 - learned.quickest / max(seconds, learned.quickest)) > max(_WAITING, learned.limit / 4)


def server_of(target: Target) -> Server:
    return target.host, target.port
