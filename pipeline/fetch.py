"""From URLs to bytes: many at once, within limits, behind the guard of fetch_guard.py."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from pipeline.addresses import Allowed
from pipeline.fetch_call import Call, Places
from pipeline.fetch_guard import Names, Resolve, system_lookup
from pipeline.fetch_loop import Loop
from pipeline.fetch_transfer import Budget, Transfer
from pipeline.types import MAX_IMAGE_BYTES, Failure, Fetched


class Fetcher:
    """Implements pipeline.ports.Fetch. Thread-safe; connections and looked-up names serve later calls too.

    `allow`: what may be reached beside public addresses. `parallel`: fetches at once in one call. `per_host`: fetches at
    once from one host, all calls together. `deadline`: seconds for one fetch, from its lookup to its last byte, redirects
    and retries included. `max_bytes`: of one image. `resolve`: what looks names up.
    """

    def __init__(
        self,
        allow: Sequence[Allowed] = (),
        *,
        parallel: int = 256,
        per_host: int = 256,
        deadline: float = 20.0,
        max_bytes: int = MAX_IMAGE_BYTES,
        resolve: Resolve = system_lookup,
    ) -> None:
        self._allow = tuple(allow)
        self._parallel = parallel
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._names = Names(self._allow, resolve=resolve)
        self._places = Places(per_host)
        self._lock = threading.Lock()
        self._loops: list[Loop] = []
        self._closed = False

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        """One value for each (index, url), as they complete, in any order. See pipeline.ports.Fetch.

        A fetch's deadline does not run while the caller holds a value; `timeout` does. Raises TotalTooLarge, and
        nothing else for what URLs, names and servers do. What is under way when the iterator is closed is given up.
        """
        loop = self._borrow()
        call = Call(
            loop=loop,
            names=self._names,
            places=self._places,
            allow=self._allow,
            budget=Budget(total),
            parallel=self._parallel,
            deadline=self._deadline,
            timeout=timeout,
        )
        try:
            yield from call.results(urls)
        finally:
            call.give_up()
            self._return(loop)

    def close(self) -> None:
        """Closes the connections that are kept; those of calls under way go when the calls end."""
        with self._lock:
            self._closed = True
            loops, self._loops = self._loops, []
        for loop in loops:
            loop.close()

    def _borrow(self) -> Loop:
        with self._lock:
            if self._loops:
                return self._loops.pop()
        return Loop(self._make, connections=self._parallel)

    def _return(self, loop: Loop) -> None:
        with self._lock:
            if not self._closed:
                self._loops.append(loop)  # the one used last is lent first: its connections are the freshest
                return
        loop.close()

    def _make(self) -> Transfer:
        # Half the deadline, so that of a host's several addresses a dead one leaves time for the next.
        return Transfer(self._allow, max_bytes=self._max_bytes, connect_timeout=self._deadline / 2)
