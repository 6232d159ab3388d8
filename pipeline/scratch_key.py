"""The keys of scratch objects."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The keys that a store accepts: folders and a name of safe characters. The keys of jobs have a stricter form, see ScratchKey.
SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")

_INPUT = re.compile(r"([A-Za-z0-9_-]+)/in-c([0-9]+)")
_STAGED = re.compile(r"([A-Za-z0-9_-]+)/r([0-9]+)-c([0-9]+)-e([0-9]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScratchKey:
    """The key of one scratch object of a job. `str` gives the text that a store accepts, and `parse` reads it.

    A chunk's input, as it came with the request, is `<job>/in-c<chunk>`. A chunk's staged object is
    `<job>/r<round>-c<chunk>-e<epoch>`. This key has the epoch so that a worker that lost its lease can't overwrite the object of
    the worker that has the lease now.
    """

    job: str
    round: int  #: of the job; an input belongs to the first round
    chunk: int  #: the chunk's number
    epoch: int | None  #: of the stage step that stored the object; None: the object is the chunk's input

    @classmethod
    def of_input(cls, job: str, *, chunk: int) -> ScratchKey:
        """The key of a chunk's base64 texts or files, as they came with the request."""
        return cls(job=job, round=1, chunk=chunk, epoch=None)

    @classmethod
    def of_staged(cls, job: str, *, round_: int, chunk: int, epoch: int) -> ScratchKey:
        """The key of the images that the stage step with this epoch has stored."""
        return cls(job=job, round=round_, chunk=chunk, epoch=epoch)

    @classmethod
    def parse(cls, text: str) -> ScratchKey | None:
        """Reads a key. None if it is not the key of a job's object but, for example, a partly written file."""
        if match := _STAGED.fullmatch(text):
            return cls(job=match[1], round=int(match[2]), chunk=int(match[3]), epoch=int(match[4]))
        if match := _INPUT.fullmatch(text):
            return cls.of_input(match[1], chunk=int(match[2]))
        return None

    def __str__(self) -> str:
        if self.epoch is None:
            return f"{self.job}/in-c{self.chunk}"
        return f"{self.job}/r{self.round}-c{self.chunk}-e{self.epoch}"


def reading_key(job: str, sha256: str) -> str:
    """The key of what the OCR read in a picture of the job. `sha256`: hex, of the picture as received."""
    return f"{job}/ocr-{sha256}"


def is_input(key: str) -> bool:
    """Whether the object holds images as they came with the request."""
    return _INPUT.fullmatch(key) is not None


def job_prefix(job: str) -> str:
    """The prefix of the keys of this job's objects. No other job's keys start with it."""
    return f"{job}/"


def owner_of(key: str) -> str:
    """The job that the object belongs to, by its key. If it belongs to no job, the name of its outermost folder."""
    return key.partition("/")[0]
