"""Follows a job: passes its rows on as they come, waits until it has ended, and takes over its outcomes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cli.client import ApiError, Evidence, Item, Job
from cli.run.progress import Standing, counted
from cli.run.send import Run
from cli.run.state import State
from cli.run.types import Row, SentJob

POLL_SECONDS = 2  #: so that the bar moves; the service answers at once when the job ends
LOOK_SECONDS = 5.0  #: between two looks at the images of a running job; one look may take several requests
PAGE = 500  #: images of one request
#: Warnings that describe the answers, and not what the job waits for.
_NO_WAIT = ("does not follow", "had no effect", "nknown field", "not known", "ignored", "maxMoney")
_NOTES = "the items' notes"  #: part of the warnings that say what was not read of some images
EXPIRED = "results_expired"
EXPIRED_TEXT = "The image was read and paid, but the service deleted the answer before it was fetched (RESULT_TTL)."

#: Is called with rows as they come, from several threads.
OnRows = Callable[[list[Row]], None]


@dataclass
class Board:
    """The jobs that run now. Used by several threads."""

    #: Why the client waits for the service; empty if it does not.
    waiting: str = ""
    _live: dict[int, Job] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, number: int, job: Job) -> None:
        with self._lock:
            self._live[number] = job
            self.waiting = ""

    def end(self, number: int) -> None:
        """The state has the outcomes of this job now, so the board counts it no more."""
        with self._lock:
            self._live.pop(number, None)

    def new_notes(self, job: Job) -> list[str]:
        """What the job says about its images, without what another job of the run has said."""
        with self._lock:
            found = [text for text in job.warnings if _NOTES in text and text not in self._noted]
            self._noted.update(found)
        return found

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
    return [] if job.ended else [text for text in job.warnings if not any(part in text for part in (*_NO_WAIT, _NOTES))]


class RowsSoFar:
    """Passes on each row of a running job once, as soon as the service shows its outcome."""

    def __init__(self, run: Run, job: SentJob, on_rows: OnRows) -> None:
        self._run, self._job, self._on_rows = run, job, on_rows
        self._open = run.state.rows_of(job, sent=True)  # by place in the job
        self._cursor = ""  # of the first page with an image that has no outcome yet
        self._finished = 0  # images that had an outcome at the last look
        self._next_look = 0.0  # of time.monotonic

    def look(self, seen: Job) -> None:
        """Asks the service for outcomes, if there are new ones and the last look is not just over."""
        now = time.monotonic()
        if seen.counts.done <= self._finished or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        self._finished = seen.counts.done
        before = True  # every image of the pages so far has been passed on
        for items, following in self._run.client.item_pages(self._job.id, page=PAGE, cursor=self._cursor):
            self._take(items)
            before = before and not any(item.index in self._open for item in items)
            if before and following:
                self._cursor = following

    def rest(self) -> None:
        """Passes on what is left when the state has the outcomes of the job."""
        rows = self._run.state.rows_of(self._job)
        self._pass_on({place: row for place, row in rows.items() if place in self._open and row.state in ("done", "failed")})

    def _take(self, items: list[Item]) -> None:
        found: dict[int, Row] = {}
        for item in items:
            row = self._open.get(item.index)
            if row is None:
                continue
            if item.status == "failed":
                found[item.index] = row._replace(state="failed", code=item.code or "", message=item.message or "")
            elif item.status == "succeeded" and item.result is not None:  # an older service shows results only at the end
                if item.evidence and item.evidence.places is None and not item.evidence.code:
                    continue  # the OCR has not read it yet
                shown = shown_evidence(item.evidence) if item.evidence else None
                found[item.index] = row._replace(state="done", code="", message="", result=item.result, evidence=shown)
        self._pass_on(found)

    def _pass_on(self, found: dict[int, Row]) -> None:
        for place, row in found.items():
            del self._open[place]
            if row.state == "failed":
                self._run.reporter.failure(row.name, row.code, row.message)
        if found:
            self._on_rows(list(found.values()))


def follow(run: Run, job: SentJob, board: Board, on_rows: OnRows) -> None:
    """Waits for the job's end and takes its outcomes. If the service does not know the job, its images become new."""
    rows = RowsSoFar(run, job, on_rows)
    try:
        while True:
            run.check_stop()
            seen = run.client.job(job.id, wait=POLL_SECONDS)
            board.see(job.no, seen)
            run.state.spent(job, seen.spent.credits, seen.spent.money)
            if seen.ended:
                break
            rows.look(seen)
        take_over(run, job, seen)
    except ApiError as error:
        if error.status not in (404, 410):
            raise
        run.reporter.warn("job_gone", gone_text(run.state, job, job.id), job=job.id)
        run.state.dissolve(job)
        return
    finally:
        board.end(job.no)
    rows.rest()
    for text in board.new_notes(seen):
        run.reporter.say("note", text, job=job.id)


def shown_evidence(found: Evidence) -> dict[str, Any]:
    """The evidence of an image, as a run keeps it."""
    return {"evidence": found.places, "unsupported": list(found.unsupported), "evidenceError": found.code or None}


def gone_text(state: State, job: SentJob, service_id: str) -> str:
    """What is said about a job whose answers can't be read any more, so that nobody pays twice without knowing it."""
    images = counted(len(state.rows_of(job, sent=True)), "image")
    return f"The service has deleted the answers of job {service_id}. Its {images} will be sent, and paid, again."


def expired(job: Job) -> bool:
    """Whether the service has deleted the answers of a job that has ended, because they are too old."""
    until = job.raw.get("expiresAt")
    return job.ended and (until is None or datetime.fromisoformat(until) <= datetime.now(UTC))


def take_over(run: Run, job: SentJob, seen: Job) -> None:
    """Writes the outcomes of a job that has ended into the state."""
    evidence: dict[int, Mapping[str, Any]] = {}
    run.state.take_outcomes(job, outcomes(run, job, seen, evidence), evidence)


def outcomes(run: Run, job: SentJob, seen: Job, evidence: dict[int, Mapping[str, Any]]) -> Iterator[tuple[int, str, str, Any]]:
    """Place, code, message and result of each image. An image that the job did not come to fails with the job's own fault.

    `evidence` gets that of each image, by place.
    """
    rest = seen.error_code or ("cancelled" if seen.status == "cancelled" else "internal_error")
    text = seen.error or ("The job was cancelled." if seen.status == "cancelled" else "The job ended without this image.")
    gone: bool | None = None
    for item in run.client.items(job.id):
        if item.evidence and item.status == "succeeded":
            evidence[item.index] = shown_evidence(item.evidence)
        if item.status == "failed":
            yield item.index, item.code or "internal_error", item.message or "", None
        elif item.status != "succeeded" or seen.status == "failed":
            yield item.index, rest, text, None
        elif item.result is not None:
            yield item.index, "", "", item.result
        else:
            # The answer may have been deleted since the job was seen. Otherwise it is null, as some schemas allow.
            gone = expired(run.client.job(job.id)) if gone is None else gone
            yield (item.index, EXPIRED, EXPIRED_TEXT, None) if gone else (item.index, "", "", None)
