"""Pictures for people to look at, made by decoder children that this process starts when it needs them.

A web process never decodes a picture itself. It has few children, because a picture takes a core. The accounts take turns at them.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.errors import ApiError
from api.places import Places
from pipeline.decode.pool import DecoderPool
from pipeline.ports import Preview
from pipeline.types import Prepared, Refused

CHILDREN = 2  #: decoder children of a web process
IDLE_SECONDS = 60.0  #: then the children are ended
PREVIEW_PLACES = 64  #: requests that have a child or wait for one; an account gets up to three quarters of the free ones
WAIT_SECONDS = 30.0  #: for a child; then the request is refused


class Previews:
    """Makes previews, a few at a time. Thread-safe.

    One account never has all children. If several accounts wait, each gets one picture in turn. So one account delays the picture of
    another by at most the pictures of the accounts that are before it, one of each.
    """

    def __init__(
        self,
        preview: Preview,
        end_idle: Callable[[], None] = lambda: None,
        *,
        children: int = CHILDREN,
        places: int = PREVIEW_PLACES,
        wait_seconds: float = WAIT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._preview = preview
        self._end_idle = end_idle
        self._free = children
        self._most = max(children - 1, 1)  # children that one account may have at once
        self._places = Places(places)
        self._wait_seconds = wait_seconds
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()  # children by account
        self._waiting: OrderedDict[str, deque[threading.Event]] = OrderedDict()  # the account whose turn is next comes first
        self._timer: threading.Timer | None = None

    def make(self, account: str, read: Callable[[], bytes], *, width: int) -> Prepared | Refused:
        """The preview of the picture that `read` gives. `read` is called when a child is free, so that few pictures are in memory.

        Raises ApiError 429 if too many requests wait or no child becomes free in time, and whatever `read` raises.
        """
        if not self._places.take(account):
            raise _too_many()
        try:
            with self._child(account):
                return self._preview(read(), width=width)
        finally:
            self._places.give_back(account)

    @contextmanager
    def _child(self, account: str) -> Iterator[None]:
        turn = threading.Event()
        with self._lock:
            self._waiting.setdefault(account, deque()).append(turn)
            self._grant()
        if not turn.wait(self._wait_seconds) and self._give_up(account, turn):
            raise _too_many()
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._busy[account] -= 1
                if not self._busy[account]:
                    del self._busy[account]
                self._grant()
                if not self._busy:
                    self._timer = threading.Timer(self._idle_seconds, self._end_idle)
                    self._timer.daemon = True
                    self._timer.start()

    def _grant(self) -> None:
        """Gives free children to those who wait, an account after the other."""
        while self._free and (account := next((one for one in self._waiting if self._busy[one] < self._most), None)):
            turns = self._waiting.pop(account)
            turns.popleft().set()
            if turns:
                self._waiting[account] = turns  # at the end
            self._free -= 1
            self._busy[account] += 1
            if self._timer:
                self._timer.cancel()
                self._timer = None

    def _give_up(self, account: str, turn: threading.Event) -> bool:
        """Whether the request gives up its turn. It does not if it has got a child meanwhile."""
        with self._lock:
            if turn.is_set():
                return False
            self._waiting[account].remove(turn)
            if not self._waiting[account]:
                del self._waiting[account]
            return True


def decoded_previews(places: int = PREVIEW_PLACES) -> Previews:
    """Previews that decoder children make. `places`: as PREVIEW_PLACES."""
    pool = DecoderPool(CHILDREN)
    return Previews(pool.preview, pool.end_idle, places=places)


def _too_many() -> ApiError:
    return ApiError(429, "too_many_previews", "Too many pictures are being prepared; try again.", {"Retry-After": "2"})
