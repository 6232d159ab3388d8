"""What the stages need from outside, as small protocols. Each has one contract suite in tests/contract/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Protocol

from pipeline.types import Answer, Call, Failure, Fetched, Prepared, Refused
from pipeline.webhook import Answered


class Scratch(Protocol):
    """Objects that live as long as their job. Keys are `<job id>/<rest>`, of [A-Za-z0-9._/-]."""

    def put(self, key: str, body: IO[bytes]) -> None:
        """Stores what `body` yields from its start; whole or not at all; replaces."""

    def open(self, key: str) -> IO[bytes]:
        """A seekable reader over the object's bytes, the caller's to close. Raises FileNotFoundError."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes each; a missing key is no error. Raises OSError naming how many could not be deleted."""

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with `prefix`, in any order."""


class Fetch(Protocol):
    """Fetches many URLs at once."""

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        """One value for each (index, url), as they complete, in any order.

        `total`: bytes that all of it may have together. Raises TotalTooLarge as soon as more were received.
        `timeout`: seconds for the whole of it, beside each fetch's own deadline.
        """


class TotalTooLarge(Exception):
    """The images of a request are together over the size limit."""


class Decode(Protocol):
    """Shows that bytes are an image the model can take, or makes them one."""

    def __call__(self, data: bytes) -> Prepared | Refused:
        """Never raises for what is in `data`, not even if decoding it kills the decoder. Thread-safe."""


class Deliver(Protocol):
    """Calls a webhook."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """One POST. Never raises for what names and receivers do. Thread-safe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """What one call of an engine can take."""

    pictures: int  #: most pictures a call
    raw_bytes: int  #: most raw picture bytes a call; a single larger picture goes alone
    without_pictures: bool = True  #: whether it answers a prompt alone, as answers are made one


class Engine(Protocol):
    """A model that answers a prompt about pictures."""

    @property
    def name(self) -> str:
        """Which engine it is: `gemini` or `ocr`."""

    @property
    def model(self) -> str:
        """As the job's record shows it."""

    @property
    def limits(self) -> EngineLimits:
        """What one call can take."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every job run on this engine must be told."""

    def ask(self, call: Call) -> Answer:
        """One request, with its own short retries. Thread-safe.

        Raises ModelUnavailable (ask again later: costs no try), ModelFault (this call failed: try again, then
        split) or ModelRefused (the model will never take this call).
        """

    def close(self) -> None:
        """Ends what the engine holds (connections, child processes)."""


class ModelUnavailable(Exception):
    """The model can't be asked now."""

    def __init__(self, message: str, *, retry_after: float, notice: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after  #: seconds
        self.notice = notice  #: for the job's warnings, when a person has to act (a bad key, no credit)


class ModelFault(Exception):
    """The model failed on this call (HTTP 500): the call may be the cause."""


class ModelRefused(Exception):
    """The model will never take this call (HTTP 400 and the like)."""
