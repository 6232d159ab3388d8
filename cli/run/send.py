"""Prepares jobs and sends them. Each job is written down with its key before it is sent, so that it is never made twice."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.client import ApiError, Client, File, FileChanged
from cli.run.options import Options
from cli.run.plan import Limits, how_many_fit, job_fields, job_key
from cli.run.progress import Reporter
from cli.run.scan import too_large
from cli.run.state import State
from cli.run.types import Image, SentJob

PIECE = 1 << 20  #: bytes hashed at a time
DAY_SECONDS = 86_400.0  #: the clocks of the service and of this machine may differ by less


class Detached(Exception):
    """The user wants to go. Jobs that were sent go on at the service."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the threads of a run share."""

    options: Options
    client: Client
    state: State
    reporter: Reporter
    limits: Limits
    salt: str  #: makes the keys of a --restart new; usually empty
    keep: bool  #: the service keeps the files for another try
    of_images: int  #: how many images the run has in all
    stop: threading.Event  #: is set when the user wants to go
    full: threading.Event  #: is set when the service takes no more jobs of this run
    packing: threading.Lock  #: one thread at a time chooses images

    def check_stop(self) -> None:
        if self.stop.is_set():
            raise Detached


def next_job(run: Run) -> SentJob | None:
    """Packs the next images into a job and writes it down. None if there are no more."""
    while True:
        run.check_stop()
        with run.packing:
            is_url, found = run.state.take_new(run.limits.images)
            if not found or run.full.is_set():
                return None
            images = found[: how_many_fit(((image.name, image.size) for image in found), run.limits)]
            run.state.pack(images)
        if not is_url:
            images = _hashed(run, images)
        if images:
            common = run.options.fields()
            fields = job_fields(
                common, images, keep=run.keep and not is_url, max_money=run.options.max_money, of_images=run.of_images
            )
            key = job_key(fields, images, salt=run.salt)
            return run.state.write_job(key, {**fields, "metadata": {"run": key}}, images)


def send(run: Run, job: SentJob) -> SentJob | None:
    """Sends a job that was written down, and returns it with its id. None if it can't be made as it was written down.

    Sending it again is safe: the service answers with the job that it made the first time.
    """
    images = run.state.images_of(job)
    if len(images) == job.images:
        try:
            sent = run.client.create_job([_upload(image) for image in images], job.fields, idempotency_key=job.key)
            run.reporter.note("sent", job=sent.id, images=job.images)
            return run.state.accepted(job, sent.id)
        except FileChanged:
            pass
        except ApiError as error:
            if error.code not in ("idempotency_key_reused", "not_found"):
                raise
    return _find(run, job)


def file_hash(path: str) -> tuple[str, int]:
    """SHA-256 in hex and the number of bytes. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _hashed(run: Run, images: Sequence[Image]) -> list[Image]:
    """The images with their hashes. A file that can't be read, or has grown too large, fails by itself."""
    ready: list[Image] = []
    for image in images:
        if run.stop.is_set():
            run.state.unpack(images)
            raise Detached
        try:
            sha256, size = (image.sha256, image.size) if image.sha256 else file_hash(image.source)
        except OSError as error:
            _fail(run, image, "unreadable", f"The file can't be read: {error.strerror}.")
            continue
        if size > run.limits.image_bytes:
            _fail(run, image, "image_too_large", too_large(size, run.limits.image_bytes))
            continue
        ready.append(image._replace(sha256=sha256, size=size))
    run.state.set_hashes(ready)
    # A file may have grown since the scan. What does not fit now goes into the next job.
    fits = how_many_fit(((image.name, image.size) for image in ready), run.limits)
    run.state.unpack(ready[fits:])
    return ready[:fits]


def _fail(run: Run, image: Image, code: str, message: str) -> None:
    run.state.fail(image, code, message)
    run.reporter.failure(image.name, code, message)


def _upload(image: Image) -> File | str:
    if not image.sha256:
        return image.source
    return File(name=image.name, source=Path(os.fsdecode(image.source)), size=image.size, sha256=image.sha256)


def known_as(client: Client, job: SentJob) -> str:
    """The id of a job that may have been made although its answer was lost, found by the key in its metadata. Empty if there is none."""
    oldest = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(job.created - DAY_SECONDS))
    for seen in client.jobs():
        if (seen.created_at or "") < oldest:
            break
        if (seen.metadata or {}).get("run") == job.key:
            return seen.id
    return ""


def _find(run: Run, job: SentJob) -> SentJob | None:
    """Looks for a job that an earlier try may have made. If there is none, its images are sent anew."""
    if found := known_as(run.client, job):
        return run.state.accepted(job, found)
    run.state.dissolve(job)
    return None
