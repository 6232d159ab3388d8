"""Decides how a job ends, from the outcomes of its steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.merge import MalformedJson, merge
from pipeline.types import INPUT_FAULTS, Failure, Form, ItemCode, JobStatus, Question, Reply

NOT_SYNTHESIZED = 'The model could not combine the answers about parts of the images. They were joined as with merge "auto".'


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutcome:
    """The outcomes of all steps of a job."""

    question: Question
    total: int  #: images of the job
    replies: Sequence[Reply]  #: in any order
    failures: Sequence[Failure]  #: in image order
    fail_on_error: bool = False  #: whether one failed image makes the whole job fail


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a job ends."""

    status: JobStatus
    result: str | None  #: the `results` string; None if the job failed
    error: tuple[str, str] | None  #: stable code and text if the job failed, else None
    warnings: tuple[str, ...] = ()  #: for the job's owner


def is_synthesized(outcome: JobOutcome) -> bool:
    """Whether the model should merge its answers into one."""
    wanted = outcome.question.merge == "synthesize" and outcome.question.form is not Form.RECORDS
    return wanted and len(outcome.replies) > 1


def conclude(outcome: JobOutcome, replies: Sequence[Reply] | None = None) -> Verdict:
    """Merges the replies into the job's result, or gives the job's error.

    `replies`: the answers that the model has merged, if it did; they replace the replies of the outcome.
    """
    replies = outcome.replies if replies is None else replies
    processed = outcome.total - len(outcome.failures)
    if processed == 0 or (outcome.fail_on_error and outcome.failures):
        return Verdict(status=JobStatus.FAILED, result=None, error=_error(outcome.failures, outcome.total))
    try:
        result = merge(replies, outcome.question.form, outcome.question.merge)
    except (MalformedJson, RecursionError):
        # Each answer was parsed before, with more space left on the stack. A retry would fail in the same way, so the job fails
        # and costs nothing.
        error = (ItemCode.INTERNAL_ERROR.value, "The model's answers are nested too deeply to be merged.")
        return Verdict(status=JobStatus.FAILED, result=None, error=error)
    status = JobStatus.PARTIAL if outcome.failures else JobStatus.SUCCEEDED
    warnings = (NOT_SYNTHESIZED,) if is_synthesized(outcome) and len(replies) > 1 else ()
    return Verdict(status=status, result=result, error=None, warnings=warnings)


def is_input_fault(code: str | None) -> bool:
    """Whether only the caller can fix a job's error. The HTTP status is then 400, else 500."""
    return code in INPUT_FAULTS or code == "total_too_large"


def _error(failures: Sequence[Failure], total: int) -> tuple[str, str]:
    """The job's error: the first failure that is not the caller's fault. If there is none, the first failure."""
    speaker = next((failure for failure in failures if failure.code not in INPUT_FAULTS), failures[0])
    text = f"images[{speaker.index}]: {speaker.detail}"
    if len(failures) < total:
        text = f'{len(failures)} of the {total} images could not be processed, and onError is "fail". {text}'
    elif len(failures) > 1:
        text = f"None of the {len(failures)} images could be processed. {text}"
    return speaker.code.value, text
