"""The answer of a job whose images have all succeeded, as a worker sends it to the process in which a request waits for it.

It saves that process a read. SQL has the truth: the worker sends the answer after its commit, and a process that does not get it reads SQL.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

MOST_CHARACTERS = 1 << 16  #: of the prompt and the result together; a longer answer is read from SQL


@dataclass(frozen=True, kw_only=True, slots=True)
class Success:
    """What a job is answered with that has succeeded with all of its images."""

    images: int
    credits: int
    prompt: str
    result: str


@dataclass(frozen=True, slots=True)
class AnswerTo:
    """An answer, and the channel of the process that waits for it."""

    channel: str
    success: Success


def answer_message(job: str, success: Success) -> bytes | None:
    """The answer as text. None if it is too long to be sent."""
    if len(success.prompt) + len(success.result) > MOST_CHARACTERS:
        return None
    return json.dumps({"job": job, **asdict(success)}).encode()


def read_answer(text: bytes) -> tuple[str, Success]:
    """The job and its answer. Raises ValueError."""
    try:
        said = json.loads(text)
        success = Success(images=int(said["images"]), credits=int(said["credits"]), prompt=said["prompt"], result=said["result"])
        return said["job"], success
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"this is no answer: {error!r}") from error
