"""The keys of scratch objects: what they are made of, and how they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What a store takes as a key: folders and a name of safe characters. The keys of jobs are narrower: see ScratchKey.
SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")

_INPUT = re.compile(r"([A-Za-z0-9_-]+)/in-c([0-9]+)")
_STAGED = re.compile(r"([A-Za-z0-9_-]+)/r([0-9]+)-c([0-9]+)-e([0-9]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScratchKey:
    """Names one scratch object of a job. `str` gives the text that a store takes, and `parse` reads it.

    A chunk's input, as it came with the request, is `<job>/in-c<chunk>`; a chunk's staged object is
    `<job>/r<round>-c<chunk>-e<epoch>`. The staged object's key has the epoch, so that a worker that lost its lease can't
    write over the winner's object.
    """

    job: str
    round: int  #: of the job; an input belongs to the first one
    chunk: int  #: the chunk's number
    epoch: int | None  #: of the stage step that put the object; None: the object is the chunk's input

    @classmethod
    def of_input(cls, job: str, *, chunk: int) -> ScratchKey:
        """Of the base64 texts or files of a chunk, as they came with the request."""
        return cls(job=job, round=1, chunk=chunk, epoch=None)

    @classmethod
    def of_staged(cls, job: str, *, round_: int, chunk: int, epoch: int) -> ScratchKey:
        """Of the images that the stage step with this epoch has made ready."""
        return cls(job=job, round=round_, chunk=chunk, epoch=epoch)

    @classmethod
    def parse(cls, text: str) -> ScratchKey | None:
        """None for what is no key of a job's object: a part of a file that is being written, for example."""
        if match := _STAGED.fullmatch(text):
            return cls(job=match[1], round=int(match[2]), chunk=int(match[3]), epoch=int(match[4]))
        if match := _INPUT.fullmatch(text):
            return cls.of_input(match[1], chunk=int(match[2]))
        return None

    def __str__(self) -> str:
        if self.epoch is None:
            return f"{self.job}/in-c{self.chunk}"
        return f"{self.job}/r{self.round}-c{self.chunk}-e{self.epoch}"


def job_prefix(job: str) -> str:
    """What all keys of the job's objects start with, and no other job's."""
    return f"{job}/"


def owner_of(key: str) -> str:
    """The job that the object belongs to, by its key; of an object that is no job's, the name of its outermost folder."""
    return key.partition("/")[0]
