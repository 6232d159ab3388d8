"""Sends and follows several jobs at once, and ends early when the user presses Ctrl-C."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from cli.client import ClientError
from cli.run.follow import Board, follow, take_over
from cli.run.send import Detached, Run, next_job, send
from cli.run.types import Row, SentJob

JOBS_AT_ONCE = 3  #: one is sent, one is read, one waits
LOOK_SECONDS = 0.25
SECOND_CHANCE = 3.0  #: seconds after the first Ctrl-C in which a second one cancels the jobs


class Interrupted(Exception):
    """The user pressed Ctrl-C. `cancelled`: twice, so the jobs were cancelled."""

    def __init__(self, *, cancelled: bool) -> None:
        super().__init__("interrupted")
        self.cancelled = cancelled


@dataclass
class Presses:
    """Counts Ctrl-C and SIGTERM."""

    stop: threading.Event
    count: int = 0
    on_press: Callable[[int], None] = field(default=lambda _: None)

    def pressed(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.stop.set()


@contextmanager
def watched(stop: threading.Event) -> Iterator[Presses]:
    """Counts signals in the block instead of ending the process."""
    presses = Presses(stop)
    before = {number: signal.signal(number, presses.pressed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield presses
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(run: Run, board: Board, on_rows: Callable[[list[Row]], None]) -> list[Exception]:
    """Sends all new images and follows all jobs. Returns what made the service take no more jobs; usually nothing.

    Raises Interrupted.
    """
    unfinished: queue.SimpleQueue[SentJob] = queue.SimpleQueue()
    for job in run.state.unfinished_jobs():
        unfinished.put(job)
    faults: list[Exception] = []
    threads = [
        threading.Thread(target=_thread, args=(run, unfinished, board, on_rows, faults), daemon=True) for _ in range(JOBS_AT_ONCE)
    ]
    with watched(run.stop) as presses:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not presses.count:
            run.reporter.standing(board.standing(run.state))
            run.stop.wait(LOOK_SECONDS)
        if presses.count:
            _leave(run, threads, presses)
    run.reporter.standing(board.standing(run.state))
    run.reporter.end_bar()
    return faults


def _leave(run: Run, threads: list[threading.Thread], presses: Presses) -> None:
    """Waits a moment for a second Ctrl-C, which cancels the jobs. Always raises Interrupted."""
    run.reporter.end_bar()
    run.reporter.warn("detaching", "Interrupted. The jobs that were sent go on. Press Ctrl-C again to cancel them.")
    deadline = time.monotonic() + SECOND_CHANCE
    while presses.count < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    cancelled = presses.count >= 2
    if cancelled:
        _cancel(run)
    for thread in threads:
        thread.join(timeout=max(deadline - time.monotonic(), 0.1))
    raise Interrupted(cancelled=cancelled)


def _cancel(run: Run) -> None:
    """Cancels the jobs that are known, and takes over what they had read. The others end by their deadline or at the next run."""
    for job in run.state.unfinished_jobs():
        with suppress(ClientError, Detached):
            if job.id:
                take_over(run, job, run.client.cancel(job.id))


def _thread(
    run: Run,
    unfinished: queue.SimpleQueue[SentJob],
    board: Board,
    on_rows: Callable[[list[Row]], None],
    faults: list[Exception],
) -> None:
    try:
        while job := _next(run, unfinished):
            sent = job if job.id else send(run, job)
            if sent:
                follow(run, sent, board, on_rows)
    except Detached:
        pass
    except Exception as error:  # noqa: BLE001 - the main thread raises what is not the client's
        # What is left stays in the state file. The other threads end the jobs that they follow, but send no more.
        if not run.stop.is_set():
            faults.append(error)
            run.full.set()


def _next(run: Run, unfinished: queue.SimpleQueue[SentJob]) -> SentJob | None:
    try:
        return unfinished.get_nowait()
    except queue.Empty:
        return next_job(run)
