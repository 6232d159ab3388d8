"""The values that pass between the stages of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cli.connection import Service
from cli.run.progress import Reporter


class Image(NamedTuple):
    """An image that is to be sent."""

    no: int  #: its row
    name: str
    source: str  #: an absolute path, or a URL
    size: int  #: bytes
    sha256: str  #: hex; empty for a URL and for a file that is not hashed yet
    tries: int  #: how often it was sent before


class Row(NamedTuple):
    """An image with its outcome."""

    name: str
    state: str
    code: str
    message: str
    result: Any
    evidence: Mapping[str, Any] | None = None  #: `evidence`, `unsupported` and `evidenceError` as the service shows them


@dataclass(frozen=True, kw_only=True, slots=True)
class SentJob:
    """A job that was sent, or was about to be."""

    no: int
    key: str  #: the idempotency key
    id: str  #: of the service; empty if its answer has not come
    fields: Mapping[str, Any]
    images: int  #: how many it was made of
    created: float  #: seconds since 1970


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How many of the chosen images are in which state."""

    total: int
    done: int
    failed: int
    bytes: int  #: of all chosen images


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the command line gives to a run besides its options."""

    service: Service | None  #: None: start an embedded one
    reporter: Reporter
    can_ask: bool  #: a person sits at the terminal
    mode: int  #: permissions of new output files
    command: Sequence[str]  #: the arguments, to print the command that goes on
    started: float  #: of time.monotonic
