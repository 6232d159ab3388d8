"""What a job costs. Pure: the ledger (storage/account/ledger.py) records what this says."""

from __future__ import annotations

from pipeline.types import JobStatus

BASE = 10  #: credits a job, once, if at least one image was processed
PER_IMAGE = 1  #: credits for each image processed


def reservation(images: int, *, charged: int = 0) -> int:
    """Credits held when a round begins: the most that it can cost.

    `images`: of the whole job; `charged`: credits that its earlier rounds have charged. So a round over 30 failed images
    of 3000 holds 30, and one that follows rounds which charged nothing holds the base too.
    """
    return BASE + PER_IMAGE * images - charged


def charge(status: JobStatus, processed: int, *, fail_on_error: bool = False, charged: int = 0) -> int:
    """Credits a round that ended as `status` costs, with `processed` images answered in it and in those before it.

    `charged`: credits that the earlier rounds have charged: each image is paid for once, and the base. Nothing is charged
    for a failed job, nor where the caller asked for all or nothing (`onError: "fail"`) and did not get all.
    """
    if processed == 0 or status is JobStatus.FAILED:
        return 0
    if fail_on_error and status is not JobStatus.SUCCEEDED:
        return 0
    return reservation(processed, charged=charged)
