"""Follows a job until it has ended, and takes over its outcomes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cli.client import ApiError, Job
from cli.run.progress import Standing
from cli.run.send import Run
from cli.run.state import State
from cli.run.types import Row, SentJob

POLL_SECONDS = 2  #: so that the bar moves; the service answers at once when the job ends
#: Warnings that describe the answers, and not what the job waits for.
_NO_WAIT = ("does not follow", "had no effect", "nknown field", "not known", "ignored")


@dataclass
class Board:
    """The jobs that run now. Used by several threads."""

    #: Why the client waits for the service; empty if it does not.
    waiting: str = ""
    _live: dict[int, Job] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, number: int, job: Job) -> None:
        with self._lock:
            self._live[number] = job
            self.waiting = ""

    def end(self, number: int) -> None:
        """The state has the outcomes of this job now, so the board counts it no more."""
        with self._lock:
            self._live.pop(number, None)

    def standing(self, state: State) -> Standing:
        """How far the run is: what the state has, and the jobs that run."""
        tally, (credits_, _) = state.tally(), state.cost()
        with self._lock:
            jobs = list(self._live.values())
        waits = [self.waiting, *(text for job in jobs for text in waits_of(job))]
        done = min(tally.done + sum(job.counts.succeeded for job in jobs), tally.total)
        failed = min(tally.failed + sum(job.counts.failed for job in jobs), tally.total - done)
        return Standing(
            total=tally.total, done=done, failed=failed, credits=credits_, waiting=next((text for text in waits if text), "")
        )


def waits_of(job: Job) -> list[str]:
    """The job's warnings that say what it waits for."""
    return [] if job.ended else [text for text in job.warnings if not any(part in text for part in _NO_WAIT)]


def follow(run: Run, job: SentJob, board: Board, on_rows: Callable[[list[Row]], None]) -> None:
    """Waits for the job's end and takes its outcomes. If the service does not know the job, its images become new."""
    named: set[int] = set()
    try:
        while True:
            run.check_stop()
            seen = run.client.job(job.id, wait=POLL_SECONDS)
            board.see(job.no, seen)
            run.state.spent(job, seen.spent.credits, seen.spent.money)
            if seen.counts.failed > len(named):
                _name_failures(run, job, named)
            if seen.ended:
                break
        run.state.take_outcomes(job, outcomes(run, job, seen))
    except ApiError as error:
        if error.status not in (404, 410):
            raise
        run.state.dissolve(job)
        return
    finally:
        board.end(job.no)
    rows = run.state.rows_of(job)
    for row in rows:
        if row.state == "failed" and not named:
            run.reporter.failure(row.name, row.code, row.message)
    on_rows(rows)


def _name_failures(run: Run, job: SentJob, named: set[int]) -> None:
    """Reports the failures that have not been reported yet."""
    names = [image.name for image in run.state.images_of(job)]
    for item in run.client.items(job.id, status="failed"):
        if item.index not in named:
            named.add(item.index)
            name = (item.custom_id or "") if len(names) <= item.index else names[item.index]
            run.reporter.failure(name, item.code or "", item.message or "")


def outcomes(run: Run, job: SentJob, seen: Job) -> Iterator[tuple[int, str, str, Any]]:
    """Place, code, message and result of each image. An image that the job did not come to fails with the job's own fault."""
    rest = seen.error_code or ("cancelled" if seen.status == "cancelled" else "internal_error")
    text = seen.error or ("The job was cancelled." if seen.status == "cancelled" else "The job ended without this image.")
    for item in run.client.items(job.id):
        if item.status == "succeeded" and item.result is not None:
            yield item.index, "", "", item.result
        elif item.status == "failed":
            yield item.index, item.code or "internal_error", item.message or "", None
        elif item.status != "succeeded" or seen.status == "failed":
            yield item.index, rest, text, None
