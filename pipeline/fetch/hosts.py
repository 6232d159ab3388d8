"""How many fetches each server gets at once: few at first, more while it answers, fewer when it takes no more connections.

A small server's listen queue takes a handful of connections. What comes beyond that is dropped without a word, and the system
sends it again only after 1 s, 3 s and 7 s. So the limit of a server grows and shrinks as TCP's congestion window does: it doubles
with each round of answers until a connection fails, or answers come later for it. It is cut when a connection fails, and from there
on grows by one a round, as long as answers come no later for it (as in TCP Vegas): a server that is busy gets no more. All batches share the limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.outbound.addresses import Target

Server = tuple[str, int]  #: a host and a port

_FIRST = 8.0  # fetches at once from a server that nothing is known of
# What a failed connection leaves of the limit: of a server that answers later the more it is asked, and of another one, which
# could do more if only it took connections faster. Measured: a half for that one took a third more time.
_CUT_BUSY, _CUT = 0.5, 0.7
_WAITING = 3.0  # requests that wait at a server, besides those it works on, before it counts as busy; or a quarter of all there
_DRIFT = 1.002  # how much slower the quickest answer becomes with each answer: servers change, and a lucky one is not for ever
_LEAST_PATIENCE, _FIRST_PATIENCE, _MOST_PATIENCE = 0.2, 1.0, 4.0  # seconds
_KEPT = 4096  # servers
_KEEP_SECONDS = 60.0  # what was learned of a server that nothing is fetched from
_KEEP_SILENCE_SECONDS = 5.0


@dataclass(kw_only=True, slots=True)
class _Learned:
    """What is known of one server."""

    limit: float  #: fetches at once
    used: float  #: when a slot was last taken
    doubles: bool = True  #: the limit grows by one with each answer; else by one with each round of answers
    taken: int = 0  #: fetches that are under way
    full: bool = False  #: the last fetch that wanted a slot got none
    cut: float = -math.inf  #: when the limit was last lowered
    answers: int = 0
    quickest: float = math.inf  #: seconds of the quickest answer, from the start of its request
    usual: float = 0.0  #: seconds of the latest answers
    last_quickest: float = 0.0  #: seconds of the quickest answer of the last round
    round_quickest: float = math.inf  #: seconds of the quickest answer of this round
    round_left: int = 4  #: answers until this round ends
    connect: float | None = None  #: seconds a connection takes; None: none was made
    silent_since: float | None = None  #: when a connection failed first, of those that failed since one was made


class HostSlots:
    """Belongs to the fetching thread. Times are of the monotonic clock.

    `most`: fetches at once from one server. `silence`: seconds without any connection after which a server counts as silent.
    `clock`: seconds, only ever more.
    """

    def __init__(self, most: int, *, silence: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = float(most)
        self._silence = silence
        self._servers: dict[Server, _Learned] = {}

    def take(self, server: Server) -> bool:
        """Takes one slot, if there is one."""
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
        """How many answers the server has given so far: to be compared with an earlier number."""
        return self._of(server).answers

    def answered(self, server: Server, seconds: float) -> None:
        """A request was answered, whatever the answer, so many seconds after its start."""
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
        if learned.full:  # else the limit was not what held us back, and nothing is known of more
            if learned.doubles and not _is_busy(learned, learned.last_quickest):  # waiting delays all answers, work only some
                learned.limit = min(self._most, learned.limit + 1.0)
            elif learned.doubles or not _is_busy(learned, learned.usual):
                learned.limit = min(self._most, learned.limit + 1.0 / learned.limit)

    def connected(self, server: Server, seconds: float | None) -> None:
        """A connection was made. `seconds`: how long it took; None: that tells nothing, as an earlier try may have helped."""
        learned = self._of(server)
        learned.silent_since = None
        if seconds is not None:  # a slower connection counts at once, quicker ones little by little
            learned.connect = max(seconds, seconds if learned.connect is None else 0.9 * learned.connect + 0.1 * seconds)

    def connect_failed(self, server: Server, begun: float) -> None:
        """A connection that was begun at this time was refused, or not made in time."""
        learned = self._of(server)
        if learned.silent_since is None:
            learned.silent_since = begun
        if begun >= learned.cut:  # else it was begun before the limit was last lowered, which may have helped
            learned.cut = self._clock()
            learned.limit = max(1.0, learned.limit * (_CUT_BUSY if _is_busy(learned, learned.usual) else _CUT))
            learned.doubles = False

    def patience(self, server: Server, failed: int) -> float:
        """Seconds to wait for a connection before it is tried anew, after so many that failed.

        It goes by how long the server's connections take, as TCP's own time for sending again does once it has measured. TCP has
        not measured when it connects, so it waits a whole second; for a server nearby that is a thousand times too long.
        """
        connect = self._of(server).connect
        first = _FIRST_PATIENCE if connect is None else min(max(6 * connect, _LEAST_PATIENCE), _FIRST_PATIENCE)
        return float(min(first * 2 ** min(failed, 10), _MOST_PATIENCE))

    def is_silent(self, server: Server) -> bool:
        """Whether the server has taken no connection for so long that no more are tried for the next 5 s."""
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
        """Makes room: of the servers that nothing is fetched from, those that were used last are kept."""
        idle = sorted((known.used, server) for server, known in self._servers.items() if not known.taken)
        for _, server in idle[: max(0, len(self._servers) - _KEPT // 2)]:
            del self._servers[server]


def _is_busy(learned: _Learned, seconds: float) -> bool:
    """Whether more requests would only wait longer, as answers take so many seconds.

    By Little's law, limit * quickest / seconds of the requests are worked on. The others wait.
    """
    return learned.limit * (1 - learned.quickest / max(seconds, learned.quickest)) > max(_WAITING, learned.limit / 4)


def server_of(target: Target) -> Server:
    return target.host, target.port
