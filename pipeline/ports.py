"""What the stages need from outside, as small protocols. Each has one contract suite in tests/contract/."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Protocol

from pipeline.models import Model
from pipeline.outbound.webhook import WebhookResponse
from pipeline.types import Answer, Call, Failure, Fetched, Prepared, Refused


class Scratch(Protocol):
    """Objects that live as long as their job. Keys are as pipeline.scratch_key has them.

    Each method raises Transient or Permanent of `pipeline.errors` where the store fails.
    """

    def put(self, key: str, body: IO[bytes]) -> None:
        """Stores what `body` yields from its start; whole or not at all; replaces."""

    def open(self, key: str) -> IO[bytes]:
        """A seekable reader over the object's bytes, the caller's to close. Raises FileNotFoundError."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes each; a missing key is no error. Transient and Permanent name how many could not be deleted."""

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with `prefix`, in any order."""


class Fetch(Protocol):
    """Fetches many URLs at once."""

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        """One value for each (index, url), as they complete, in any order. Thread-safe.

        `total`: bytes that all images of the call may have together. Raises TotalTooLarge as soon as more were received, and
        nothing else for what URLs, names and servers do. An empty body is a Failure too, with `image_empty`.
        `timeout`: seconds for the whole call, beside each fetch's own deadline. What has not come by then is a Failure.
        Close the iterator if you do not take all values: fetches under way are then given up.
        """


class TotalTooLarge(Exception):
    """The images of a request are together over the size limit."""


class Decode(Protocol):
    """Shows that bytes are an image the model can take, or makes them one."""

    def __call__(self, pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        """What each picture becomes, in their order, as it is known. Thread-safe.

        Outcomes of small pictures may be held back to come together. Never raises for what is in `pictures`, not even if
        decoding one kills the decoder. The `seconds` of an outcome do not count the wait for a decoder. Close the generator if
        you do not take all outcomes: it holds a decoder until then. Raises Transient and Permanent of `pipeline.errors` if no
        decoder can be started.
        """


class Reencode(Protocol):
    """Makes a JPEG of an image that decodes, for models that do not take it as it is."""

    def __call__(self, data: bytes) -> Prepared | Refused:
        """A JPEG of at most 14,000,000 bytes, with fewer pixels if that is the only way to stay below.

        It is upright without an orientation tag, and white where the image is transparent. Never raises for what is in `data`.
        Thread-safe.
        """


class Deliver(Protocol):
    """Calls a webhook."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        """One POST with these headers and this body, and what came of it. Thread-safe.

        Redirects are not followed and nothing is sent twice. Only the start of an answer is read: its status counts. Never
        raises for what URLs, names and receivers do: what gives no status is a response that says why.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """What one call of an engine can take."""

    pictures: int  #: most pictures a call
    raw_bytes: int  #: most raw picture bytes a call; a single larger picture goes alone
    without_pictures: bool = True  #: whether it answers a prompt alone, as answers are made one


@dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """The right to make one request to a model."""

    id: str
    model: Model
    tokens: int  #: of input, as reckoned: what is reserved
    delay: float  #: seconds to wait before it is made


class Limiter(Protocol):
    """Who may ask a model when: its limits, its pauses and its breakers, shared by all workers."""

    def enter(self, model: Model, *, tokens: int, waited: bool, seconds: float) -> Permit:
        """Reserves a request with so many tokens of input, for a request that takes `seconds` at most.

        `waited` goes before others. Raises ModelUnavailable: BUSY, or what the breaker or the pause is for.
        """

    def leave(self, permit: Permit, *, tokens: int | None, trouble: ModelUnavailable | None) -> None:
        """Ends it: trues up its tokens where they are known, and heeds what the model said."""

    def notices(self, models: Iterable[Model]) -> dict[str, str]:
        """What people have to mend: the notice of each open breaker by its model's name, the engine's own by ""."""


class Engine(Protocol):
    """A model that answers a prompt about pictures."""

    @property
    def name(self) -> str:
        """Which engine it is, by its name in the table of config/engines.py."""

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
        """One answer of `call.model`. Thread-safe.

        Raises ModelUnavailable (ask again later: costs no try), ModelFault (this call failed: try again, then
        split) or ModelRefused (the model will never take this call).
        """

    def close(self) -> None:
        """Ends what the engine holds (connections, child processes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """What an engine is built from."""

    model: str  #: for jobs that name none
    api_key: str = field(repr=False)  #: empty: there is none
    base_url: str  #: of its server; empty: the vendor's own
    directory: Path  #: where it may keep what it shares with other processes of this machine


class EngineModule(Protocol):
    """What the module of each engine has, for the table in config/engines.py."""

    def open_engine(self, config: EngineConfig, reencode: Reencode, /) -> Engine:
        """The engine. `reencode` makes a JPEG of a picture that its server does not take as it is."""

    def probe(self, config: EngineConfig, timeout: float, /) -> str:
        """Looks whether the engine can be used, within `timeout` seconds and with no call of the model; what it found.

        Raises ProbeFailed.
        """


class ProbeFailed(Exception):
    """The engine can't be used."""

    def __init__(self, found: str, todo: str) -> None:
        super().__init__(found)
        self.todo = todo  #: what a person can do about it


class Cause(StrEnum):
    """Why a model can't be asked now."""

    OVERLOADED = "overloaded"  #: it or the way to it failed on this call; another call may get through
    GARBLED = "garbled"  #: what came is no answer: if it stays so, this call may bring it forth each time
    BUSY = "busy"  #: its limits are in use: nothing is wrong
    CROWDED = "crowded"  #: as many calls as there may be at once are under way: nothing is wrong
    RATE = "rate"  #: it said itself that it is asked too often
    QUOTA = "quota"  #: its quota of the day is used up
    MODEL = "model"  #: there is no such model for this key
    ACCOUNT = "account"  #: a bad key, no credit: nothing of this engine can be asked


class ModelUnavailable(Exception):
    """The model can't be asked now: a step that meets it waits, as with `pipeline.errors.Transient`, and uses up no try."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        notice: str = "",
        cause: Cause = Cause.OVERLOADED,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after  #: seconds
        self.notice = notice  #: for the job's warnings, when a person has to act (a bad key, no credit)
        self.cause = cause
        self.status = status  #: of the model's HTTP answer, if it gave one


class ModelFault(Exception):
    """The model failed on this call (HTTP 500): the call may be the cause."""


class ModelRefused(Exception):
    """The model will never take this call (HTTP 400 and the like)."""
