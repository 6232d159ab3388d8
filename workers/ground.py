"""The ground step: looks for each record of a chunk in what the OCR reads in its image."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic

import structlog
from sqlalchemy import Connection

from pipeline.evidence.finding import Finding, look, not_read, packed, unpacked
from pipeline.evidence.types import Reading
from pipeline.packed import PackReader
from pipeline.ports import ModelFault, ModelUnavailable
from pipeline.scratch_key import reading_key
from pipeline.tracing.spans import span
from storage.job import evidence
from storage.job.evidence import GroundWork, ToGround
from storage.queue import steps
from storage.queue.steps import Lease
from workers.time_slice import StepPaused, call_seconds, slice_seconds
from workers.wiring import WorkerParts

log = structlog.get_logger(__name__)

AT_ONCE = 8  #: images whose evidence is committed together
TURN_SECONDS = 20.0  #: then the step makes place for steps of other accounts
#: The OCR asks for a longer wait than this only if it does not start or keeps dying. A record must not wait for that until the
#: deadline of its job, so such a failure counts.
LONGEST_WAIT = 10.0


class OcrBroken(Exception):
    """The OCR does not start, or keeps dying."""


def ground(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Finds the evidence of every record of the chunk that has none. The returned commit records the last of it.

    If the account's places for the OCR are in use, the returned commit hands the step back.
    """
    if not parts.ocr_places.take(lease.account):
        return partial(_later, lease=lease, seconds=parts.ocr_places.wait(lease.account))
    try:
        return _ground(parts, lease)
    finally:
        parts.ocr_places.give_back(lease.account)


def _ground(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    with parts.database.read() as connection:
        work = evidence.work_of(connection, lease)
    if work.object is None:
        raise RuntimeError(f"chunk {lease.part} of job {lease.job} has no staged object")
    ends = monotonic()
    turn = _Turn(parts=parts, lease=lease, work=work, job_ends=ends + work.left)
    slice_ends = ends + min(TURN_SECONDS, slice_seconds(parts.settings))
    found: dict[int, Finding] = {}
    stored = 0
    with parts.scratch.open(work.object) as source:
        pack = PackReader(source)
        for place, image in enumerate(work.images, start=1):
            found[image.index], more = turn.find(image, pack)
            stored += more
            is_over = monotonic() > slice_ends
            if place < len(work.images) and (is_over or len(found) == AT_ONCE):
                with parts.database.write() as connection:
                    evidence.record_findings(connection, lease, found, stored=stored, last=False)
                parts.signals.tell(lease.job, ended=False)
                found, stored = {}, 0
                if is_over:
                    raise StepPaused
    return partial(evidence.record_findings, lease=lease, findings=found, stored=stored, last=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """One turn of a step."""

    parts: WorkerParts
    lease: Lease
    work: GroundWork
    job_ends: float  #: the job's deadline by `monotonic`

    def find(self, image: ToGround, pack: PackReader) -> tuple[Finding, int]:
        """The evidence of an image's record, and how many bytes were put to scratch for it."""
        try:
            reading, stored = self._reading(image, pack)
        except ModelFault as fault:
            log.info("ocr_failed", image=image.index, reason=str(fault))
            return not_read(str(fault)), 0
        return look(image.record, reading, self.work.schema), stored

    def _reading(self, image: ToGround, pack: PackReader) -> tuple[Reading, int]:
        """What the OCR reads in an image, and how many bytes were put to scratch. Raises ModelFault.

        An image that several open jobs of an account have is read once. Each of them keeps what was read with its own objects, so
        it is deleted with the last of them.
        """
        for job in image.read_by:
            with suppress(FileNotFoundError), self.parts.scratch.open(reading_key(job, image.sha256)) as kept:
                known = unpacked(kept.read())
                if known is not None:
                    return known, 0 if job == self.lease.job else self._keep(image, known)
        try:
            with span("ocr.read", index=image.index):
                reading = self.parts.text_reader.read(
                    pack.read(image.index), timeout=call_seconds(self.parts.settings, self.job_ends)
                )
        except ModelUnavailable as error:
            if error.retry_after > LONGEST_WAIT:
                raise OcrBroken(str(error)) from error
            raise
        return reading, self._keep(image, reading)

    def _keep(self, image: ToGround, reading: Reading) -> int:
        """Puts a reading to scratch. Returns its bytes."""
        body = packed(reading)
        self.parts.scratch.put(reading_key(self.lease.job, image.sha256), io.BytesIO(body))
        return len(body)


def _later(connection: Connection, *, lease: Lease, seconds: float) -> list[int]:
    delay = seconds * random.uniform(0.4, 1.6)  # noqa: S311 - jitter
    steps.hand_back(connection, lease, delay_ms=int(delay * 1000), counts=False)
    return []
