"""Computes what a job costs, in credits. Pure. The ledger (storage/account/ledger.py) records it."""

from __future__ import annotations

from pipeline.types import JobStatus

BASE = 10  #: credits for a job, charged once, if at least one image was processed
PER_IMAGE = 1  #: credits for each processed image


def reservation(images: int, *, charged: int = 0) -> int:
    """How many credits are held when a round begins. This is the most that the round can cost.

    `images`: of the whole job; `charged`: credits that its earlier rounds have charged. So a round over the 30 failed images of
    3000 holds 30 credits. A round after rounds that charged nothing also holds the base.
    """
    return BASE + PER_IMAGE * images - charged


def charge(status: JobStatus, processed: int, *, fail_on_error: bool = False, charged: int = 0) -> int:
    """How many credits a round costs that ended as `status`.

    `processed`: images that were answered in this and all earlier rounds; `charged`: credits that the earlier rounds have charged.
    They are subtracted, so the base and each image are paid for once. A failed job costs nothing. A job with `onError: "fail"`
    costs nothing unless all images were processed.
    """
    if processed == 0 or status is JobStatus.FAILED:
        return 0
    if fail_on_error and status is not JobStatus.SUCCEEDED:
        return 0
    return reservation(processed, charged=charged)
