"""Fetches many image URLs at once, within limits. Every request passes the guard of pipeline/outbound/guard.py."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from pipeline.fetch.batch import FetchBatch
from pipeline.fetch.loop import Loop
from pipeline.fetch.thread import FetchThread
from pipeline.fetch.transfer import Transfer
from pipeline.outbound.addresses import Allowed
from pipeline.outbound.guard import Names, Resolve, system_lookup
from pipeline.types import MAX_IMAGE_BYTES, Failure, Fetched


class Fetcher:
    """Implements pipeline.ports.Fetch. It is thread-safe. Later batches use its open connections and looked-up names again.

    `allow`: networks that may be reached besides public addresses. `parallel`: the most fetches at once in one batch.
    `per_host`: the most fetches at once from one host and port, for all batches together; pipeline/fetch/hosts.py learns the
    number that is used. `deadline`: seconds for one fetch, from its lookup to its last byte, including redirects and retries.
    `max_bytes`: the most bytes of one image. `resolve`: the function that looks names up.
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
        self._per_host = per_host
        self._names = Names(self._allow, resolve=resolve)
        self._lock = threading.Lock()
        self._thread: FetchThread | None = None  # started at the first call, because a thread does not survive a fork

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        """Yields one value for each (index, url) when it completes, in any order. See pipeline.ports.Fetch.

        Fetching goes on while the caller works on a value, until 32 MB wait for the caller. It raises TotalTooLarge. No other
        fault of a URL, a name or a server raises: it becomes a Failure. If the iterator is closed, running fetches are stopped.
        """
        batch = FetchBatch(urls, allow=self._allow, total=total, parallel=self._parallel, timeout=timeout)
        thread = self._begin(batch)
        try:
            for value, look_again in batch.results():
                if look_again:
                    thread.look_again(batch)
                yield value
        except BaseException:  # the iterator was closed, or its caller interrupted
            thread.give_up(batch)
            raise

    def close(self) -> None:
        """Closes all connections once the batches that are still running have ended."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def _begin(self, batch: FetchBatch) -> FetchThread:
        with self._lock:
            while self._thread is None or not self._thread.begin(batch):
                self._thread = FetchThread(
                    Loop(self._make, connections=self._parallel),
                    names=self._names,
                    per_host=self._per_host,
                    allow=self._allow,
                    deadline=self._deadline,
                )
            return self._thread

    def _make(self) -> Transfer:
        # A connection with its TLS handshake gets half of the deadline, so that there is time to try a stuck one again. A TCP
        # connection alone is given up much sooner: see FetchThread._look_at_connections.
        return Transfer(self._allow, max_bytes=self._max_bytes, connect_timeout=self._deadline / 2)
