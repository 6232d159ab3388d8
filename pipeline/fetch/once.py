"""Fetches a URL that a job names several times only once in each chunk, and once for all chunks that one process stages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Container, Generator, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitTimeout
from dataclasses import replace

from pipeline.ports import Fetch
from pipeline.types import MB, Failure, Fetched

_KEPT_BYTES = 32 * MB  # the most bytes of images that are kept because other chunks need them too
_KEPT_JOBS = 100  # the most jobs whose repeated URLs are remembered

Shared = Future[Fetched | Failure]


class _Marked:
    """A set of URLs that keeps only their hashes, because URLs may be long and may hold secrets that must not outlive their job.

    Two URLs may have the same hash, so the set may seem to hold a URL that it does not hold. That does no harm.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        self._hashes = frozenset(map(hash, urls))

    def __contains__(self, url: object) -> bool:
        return hash(url) in self._hashes


class SharedFetches:
    """The fetches that the chunks of one process share. It is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: OrderedDict[Hashable, Shared] = OrderedDict()  # the fetch that was asked for last is at the end
        self._kept = 0  # bytes of the fetches that are done
        self._reading = threading.Lock()
        self._repeated: OrderedDict[Hashable, _Marked] = OrderedDict()

    def repeated(self, scope: Hashable, read: Callable[[], Iterable[str]]) -> Container[str]:
        """The URLs that several calls of the `scope` fetch. `read` returns them, and is called once for the scope."""
        with self._lock:
            if (known := self._repeated.get(scope)) is not None:
                self._repeated.move_to_end(scope)
                return known
        with self._reading:
            if (known := self._repeated.get(scope)) is None:
                known = _Marked(read())
                with self._lock:
                    self._repeated[scope] = known
                    if len(self._repeated) > _KEPT_JOBS:
                        self._repeated.popitem(last=False)
        return known

    def fetch_once(
        self,
        fetch: Fetch,
        urls: Mapping[int, str],
        *,
        scope: Hashable,
        elsewhere: Container[str],
        total: int,
        timeout: float,
    ) -> Generator[Fetched | Failure]:
        """Yields one value for each index of `urls` when it completes. Everything else is as pipeline.ports.Fetch says.

        `elsewhere`: URLs for which other calls of the same `scope` may ask too. If another call is fetching such a URL, or its
        result is still kept, this call takes that result. If the other call gives up, this call fetches the URL itself.
        `total` counts only the bytes that this call fetches itself.
        """
        ends = time.monotonic() + timeout
        same: dict[str, list[int]] = defaultdict(list)
        for index, url in urls.items():
            same[url].append(index)
        mine, others = self._divide([url for url in same if url in elsewhere], scope)
        try:
            first = {indexes[0]: url for url, indexes in same.items() if url not in others}
            for value in fetch(first.items(), total=total, timeout=timeout):
                if (shared := mine.pop(urls[value.index], None)) is not None:
                    self._keep(shared, value)
                yield from _for_each(value, same[urls[value.index]])
        finally:
            self._give_up(mine, scope)
        left: dict[int, str] = {}
        for url, shared in others.items():
            try:
                value = shared.result(timeout=max(ends - time.monotonic(), 0.0))
            except (CancelledError, WaitTimeout):
                left[same[url][0]] = url
            else:
                yield from _for_each(value, same[url])
        if left:
            for value in fetch(left.items(), total=total, timeout=max(ends - time.monotonic(), 0.0)):
                yield from _for_each(value, same[urls[value.index]])

    def _divide(self, urls: list[str], scope: Hashable) -> tuple[dict[str, Shared], dict[str, Shared]]:
        """Returns the URLs that this call fetches for the others, and the URLs that other calls fetch or have fetched for it."""
        mine: dict[str, Shared] = {}
        others: dict[str, Shared] = {}
        with self._lock:
            for url in urls:
                known = self._shared.get((scope, url))
                if known is None:
                    mine[url] = self._shared[scope, url] = Future()
                else:
                    others[url] = known
                    self._shared.move_to_end((scope, url))
        return mine, others

    def _keep(self, shared: Shared, value: Fetched | Failure) -> None:
        shared.set_result(value)
        with self._lock:
            self._kept += _size(shared)
            for key in list(self._shared) if self._kept > _KEPT_BYTES else ():
                if self._kept <= _KEPT_BYTES:
                    break
                if self._shared[key].done():
                    self._kept -= _size(self._shared.pop(key))

    def _give_up(self, mine: Mapping[str, Shared], scope: Hashable) -> None:
        with self._lock:
            for url, shared in mine.items():
                shared.cancel()
                del self._shared[scope, url]


def _for_each(value: Fetched | Failure, indexes: list[int]) -> Iterator[Fetched | Failure]:
    for index in indexes:
        yield value if index == value.index else replace(value, index=index)


def _size(shared: Shared) -> int:
    """The value's size in bytes. A failure counts as 1024 bytes, so that failures are dropped too when there are many."""
    value = shared.result()
    return len(value.data) if isinstance(value, Fetched) else 1024
