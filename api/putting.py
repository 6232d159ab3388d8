"""Puts the images of a request to scratch in a thread of its own, while the request's job is written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context

#: How long a transaction is kept open for it. A connection to the database is not to wait for a slow S3.
PUT_SECONDS = 0.05


class StillPutting(Exception):
    """The images are not all in scratch yet."""


class Putting:
    """A put that is under way, in a thread of its own."""

    def __init__(self, put: Callable[[], object]) -> None:
        self._done: Future[None] = Future()
        # The context has the ids of the request, for log lines, and its span.
        threading.Thread(target=copy_context().run, args=(self._run, put), name="putting", daemon=True).start()

    def _run(self, put: Callable[[], object]) -> None:
        try:
            put()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the put
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def then(self, act: Callable[[], object]) -> None:
        """Has `act` called once the put has succeeded, in the thread that puts, or in another one if that has ended."""
        caller, context = threading.current_thread(), copy_context()

        def call(done: Future[None]) -> None:
            if done.exception():
                return
            if threading.current_thread() is caller:
                threading.Thread(target=context.run, args=(act,), name="announcing", daemon=True).start()
            else:
                act()

        self._done.add_done_callback(call)

    def ended_soon(self) -> None:
        """Waits for PUT_SECONDS at most. Raises StillPutting, or what the put has raised."""
        if not wait([self._done], PUT_SECONDS).done:
            raise StillPutting
        self._done.result()

    def end(self) -> None:
        """Waits for the put's end. Raises what it has raised."""
        self._done.result()

    def settle(self) -> None:
        """Waits for the put's end, however it ends, so that nothing is put any more."""
        wait([self._done])
