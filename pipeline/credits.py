"""What a job costs. Pure: the ledger (storage/ledger.py) records what this says."""

from __future__ import annotations

from pipeline.types import JobStatus

BASE = 10  #: credits a job, once, if at least one image was processed
PER_IMAGE = 1  #: credits for each image processed


def reservation(images: int, *, base_charged: bool = False) -> int:
    """Credits held when `images` images are accepted: the most that the round can cost.

    `base_charged`: an earlier round of the same job has charged the base already.
    """
    return (0 if base_charged else BASE) + PER_IMAGE * images


def charge(status: JobStatus, processed: int, *, fail_on_error: bool = False, base_charged: bool = False) -> int:
    """Credits a round that ended as `status` costs, with `processed` images answered in it.

    Nothing is charged for a failed job, nor where the caller asked for all or nothing (`onError: "fail"`) and did
    not get all.
    """
    if processed == 0 or status is JobStatus.FAILED:
        return 0
    if fail_on_error and status is not JobStatus.SUCCEEDED:
        return 0
    return reservation(processed, base_charged=base_charged)
