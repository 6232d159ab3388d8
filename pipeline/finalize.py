"""What a job comes to, from what its steps brought in. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.merge import MalformedJson, merge
from pipeline.types import INPUT_FAULTS, Failure, Form, ItemCode, JobStatus, Question, Reply

NOT_SYNTHESIZED = (
    'The model could not make the answers about parts of the images one: they are put together as with merge "auto".'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutcome:
    """All that the steps of a job have brought in."""

    question: Question
    total: int  #: images of the job
    replies: Sequence[Reply]  #: in any order
    failures: Sequence[Failure]  #: in image order
    fail_on_error: bool = False  #: all images or nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a job ends."""

    status: JobStatus
    result: str | None  #: the `results` string, where any image was processed
    error: tuple[str, str] | None  #: stable code and text, where none was
    warnings: tuple[str, ...] = ()  #: for the job's owner


def is_synthesized(outcome: JobOutcome) -> bool:
    """Whether the model is to make one answer of those that it gave."""
    wanted = outcome.question.merge == "synthesize" and outcome.question.form is not Form.RECORDS
    return wanted and len(outcome.replies) > 1


def conclude(outcome: JobOutcome, replies: Sequence[Reply] | None = None) -> Verdict:
    """Merges the replies, or says why there are none. `replies`: what the model has made of those of the outcome, if it was
    to."""
    replies = outcome.replies if replies is None else replies
    processed = outcome.total - len(outcome.failures)
    if processed == 0 or (outcome.fail_on_error and outcome.failures):
        return Verdict(status=JobStatus.FAILED, result=None, error=_error(outcome.failures, outcome.total))
    try:
        result = merge(replies, outcome.question.form, outcome.question.merge)
    except (MalformedJson, RecursionError):
        # Each was read before, with more room on the stack. Trying again would not help: the job ends, and costs nothing.
        error = (ItemCode.INTERNAL_ERROR.value, "The model's answers are nested too deeply to be merged.")
        return Verdict(status=JobStatus.FAILED, result=None, error=error)
    status = JobStatus.PARTIAL if outcome.failures else JobStatus.SUCCEEDED
    warnings = (NOT_SYNTHESIZED,) if is_synthesized(outcome) and len(replies) > 1 else ()
    return Verdict(status=status, result=result, error=None, warnings=warnings)


def is_input_fault(code: str | None) -> bool:
    """Whether a job's error is the caller's to mend: HTTP 400, else 500."""
    return code in INPUT_FAULTS or code == "total_too_large"


def _error(failures: Sequence[Failure], total: int) -> tuple[str, str]:
    """The first failure that is not the caller's fault speaks for the job, else the first."""
    speaker = next((failure for failure in failures if failure.code not in INPUT_FAULTS), failures[0])
    text = f"images[{speaker.index}]: {speaker.detail}"
    if len(failures) < total:
        text = f'{len(failures)} of the {total} images could not be processed, and onError is "fail". {text}'
    elif len(failures) > 1:
        text = f"None of the {len(failures)} images could be processed. {text}"
    return speaker.code.value, text
