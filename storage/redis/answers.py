"""The answer of an ended job, as a worker sends it to the process in which a request waits for it.

It saves that process a read. SQL has the truth: the worker sends the answer after its commit, and a process that does not get it reads SQL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.job_object import AnswerView, ResultView
from pipeline.types import JobStatus

MOST_CHARACTERS = 1 << 16  #: of the prompt and the result together; a longer answer is read from SQL


@dataclass(frozen=True, slots=True)
class AnswerTo:
    """An answer, and the channel of the process that waits for it."""

    channel: str
    view: AnswerView


def answer_message(job: str, view: AnswerView) -> bytes | None:
    """The answer as text. None if it is not sent: it is too long, or says more than that all images have succeeded."""
    result = view.result
    plain = view.status is JobStatus.SUCCEEDED and not view.expired and not result.failures and result.evidence is None
    if not plain or len(result.prompt) + len(result.result) > MOST_CHARACTERS:
        return None
    return json.dumps([job, view.succeeded, view.credits, result.prompt, result.result]).encode()


def read_answer(text: bytes) -> tuple[str, AnswerView]:
    """The job and its answer. Raises ValueError."""
    try:
        job, succeeded, charged, prompt, result = json.loads(text)
        return str(job), AnswerView(
            status=JobStatus.SUCCEEDED,
            succeeded=int(succeeded),
            credits=int(charged),
            expired=False,
            error_code=None,
            error_message=None,
            result=ResultView(prompt=str(prompt), result=str(result), failures=(), custom_ids={}),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"this is no answer: {error!r}") from error
