"""The ports: small protocols for what the stages need from outside. Each has one contract suite in tests/contract/."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline.evidence.types import Reading
from pipeline.models import Model
from pipeline.outbound.webhook import WebhookResponse
from pipeline.types import Answer, Call, Failure, Fetched, ItemCode, Prepared, Refused, Tier


class Scratch(Protocol):
    """A store of objects that live as long as their job. pipeline.scratch_key defines the keys.

    Each method raises Transient or Permanent of `pipeline.errors` if the store fails.
    """

    def put(self, key: str, body: IO[bytes]) -> None:
        """Stores all of `body`, read from its start, or nothing. Replaces an object with the same key."""

    def open(self, key: str) -> IO[bytes]:
        """A seekable reader of the object's bytes. The caller must close it. Raises FileNotFoundError."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes the objects. A missing key is no error. Transient and Permanent say how many could not be deleted."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yields every key that starts with `prefix`, in any order."""

    def ages(self, prefix: str) -> Iterator[tuple[str, float]]:
        """As `list`, each key with the seconds since its object was stored, by the clock of the store."""

    def abort_uploads(self, seconds: float) -> int:
        """Ends uploads in parts that began more than `seconds` ago and were never finished. Returns how many there were."""


class Fetch(Protocol):
    """Fetches many URLs at once."""

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        """Yields one value for each (index, url) when it completes, in any order. Thread-safe.

        `total`: the most bytes that all images of the call may have together. Raises TotalTooLarge as soon as more are received.
        A fault of a URL, a name or a server never raises. It is a Failure, and so is an empty body (`image_empty`).
        `timeout`: seconds for the whole call, in addition to each fetch's own deadline. A fetch that is not done by then is a
        Failure. Close the iterator if you do not take all values, because this stops the running fetches.
        """


class TotalTooLarge(Exception):
    """The images of a request have more bytes together than the limit allows."""


class Decode(Protocol):
    """Checks that bytes are an image, and converts it if the model does not accept its format."""

    def __call__(self, pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        """Yields the outcome of each picture as soon as it is known, in the order of `pictures`. Thread-safe.

        Outcomes of small pictures may be delayed, because they are decoded together. The content of a picture never raises, not
        even if decoding it kills the decoder. The `seconds` of an outcome do not include the wait for a decoder. Close the
        generator if you do not take all outcomes, because it holds a decoder until then. Raises Transient and Permanent of
        `pipeline.errors` if no decoder can be started.
        """


class Reencode(Protocol):
    """Makes a JPEG from an image that decodes, for models that do not accept its format."""

    def __call__(self, data: bytes) -> Prepared | Refused:
        """A JPEG of at most 14,000,000 bytes. It has fewer pixels if it would be larger otherwise.

        It is upright without an orientation tag, and white where the image is transparent. The content of `data` never raises.
        Thread-safe.
        """


class Preview(Protocol):
    """Makes a small JPEG of an image for people to look at."""

    def __call__(self, data: bytes, *, width: int) -> Prepared | Refused:
        """A JPEG of at most `width` pixels across, never larger than the image. The result's width and height are the upright image's.

        It is upright without an orientation tag. An image that a job refuses is refused here with the same code. The content of
        `data` never raises. Thread-safe. Raises Transient and Permanent of `pipeline.errors` if no decoder can be started.
        """


class Deliver(Protocol):
    """Calls a webhook."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        """Sends one POST with these headers and this body, and returns its outcome. Thread-safe.

        Redirects are not followed, and nothing is sent twice. Only the start of an answer is read, because only its status counts.
        A fault of a URL, a name or a receiver never raises. If there is no status, the response says why.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """The limits of one call of an engine."""

    pictures: int  #: most pictures in a call
    raw_bytes: int  #: most raw bytes of all pictures in a call; a larger picture is sent alone
    without_pictures: bool = True  #: whether it answers a prompt without pictures, which merging answers needs


@dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """The right to make one request to a model."""

    id: str
    model: Model
    tier: Tier = Tier.STANDARD  #: the lane that the request is in
    tokens: int  #: estimated input tokens, which are reserved
    delay: float  #: seconds to wait before the request is sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """The calls of a model are stopped for a while, or until somebody has mended something."""

    model: str  #: its name; empty: every model of the engine
    tier: Tier
    cause: Cause


class Limiter(Protocol):
    """Rate limits, pauses and circuit breakers of the models, shared by all workers."""

    def enter(self, model: Model, *, tokens: int, waited: bool, seconds: float, tier: Tier = Tier.STANDARD) -> Permit:
        """Reserves a request with `tokens` input tokens that takes at most `seconds`.

        `waited`: a caller waits for the answer, so the request goes before others. `tier`: each tier of a model has a lane with
        concurrent calls, pauses and a breaker of its own. Both lanes count towards the limits of requests and tokens, and economy
        requests go last. Raises ModelUnavailable: with BUSY or CROWDED if the limits are in use, else with the cause of the pause
        or the breaker.
        """

    def leave(self, permit: Permit, *, tokens: int | None, trouble: ModelUnavailable | None) -> None:
        """Ends a request. Corrects its tokens if they are known, and pauses the model or opens its breaker if `trouble` asks so."""

    def paused(self, model: Model, tier: Tier) -> float:
        """For how many seconds the model takes no request of that tier, because it was asked too often or shed calls. 0: no pause.

        Reserves nothing, so that a step can look before it reads its pictures.
        """

    def notices(self, models: Iterable[Model]) -> dict[str, str]:
        """What a person has to fix: the notice of each open breaker, by the model's name. The engine's own breaker has the name ""."""

    def stops(self, models: Iterable[Model]) -> list[Stop]:
        """The open breakers and the pauses now, in the order of `models`, after those of the engine itself."""


class Lessons(Protocol):
    """What model servers have taught the engines about how they want to be asked, shared by all workers.

    A topic is a model of one server, or a kind of call of such a model. A lesson is a JSON object, and is forgotten after an hour.
    """

    def known(self, *topics: str, fresh: bool = False) -> list[Mapping[str, Any]]:
        """The lesson of each topic, in the order of `topics`. Empty if there is none.

        What another worker has learnt may be missed for a second. `fresh`: it is not to be missed.
        """

    def learn(self, topic: str, lesson: Mapping[str, Any]) -> None:
        """Replaces the lesson of a topic."""


class Engine(Protocol):
    """A model that answers a prompt about pictures."""

    @property
    def name(self) -> str:
        """The engine's name in the table of config/engines.py."""

    @property
    def model(self) -> str:
        """The name of the default model."""

    @property
    def limits(self) -> EngineLimits:
        """The limits of one call."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for every job that runs on this engine."""

    def ask(self, call: Call) -> Answer:
        """One answer of `call.model`. Thread-safe.

        Raises ModelUnavailable (ask again later, no try is counted), ModelFault (this call failed; try again, then split it) or
        ModelRefused (the model will never accept this call).
        """

    def most_pictures(self, model: str) -> int:
        """The most pictures in a call of `model`, as far as is known. Never above `limits.pictures`. Empty: the default model."""

    def learn_pictures(self, model: str, most: int) -> None:
        """Takes note that `model` was seen to refuse every call with more pictures than this."""

    def close(self) -> None:
        """Closes the engine's connections and child processes."""


class TextReader(Protocol):
    """Reads the text of pictures, so that records can be compared with it."""

    def read(self, data: bytes, *, timeout: float) -> Reading:
        """What stands in a picture that the decoder accepts. `timeout`: seconds. Thread-safe.

        Raises ModelFault if this picture can't be read, ModelUnavailable if no picture can be read now, and Permanent if none can
        ever be read.
        """

    def close(self) -> None:
        """Closes the connections of the reader."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """The arguments that an engine is built from."""

    model: str  #: the default model, for jobs that name none
    api_key: str = field(repr=False)  #: empty: there is none
    store: bool = False  #: whether the vendor may keep what it is sent
    base_url: str  #: of its server; empty: the vendor's server
    directory: Path  #: for files that it shares with other processes of this machine
    lessons: Lessons | None = None  #: None: the engine remembers by itself what its server teaches it


class EngineModule(Protocol):
    """The functions that the module of each engine has, for the table in config/engines.py."""

    def open_engine(self, config: EngineConfig, reencode: Reencode, /) -> Engine:
        """Builds the engine. `reencode` makes a JPEG from a picture that its server does not accept."""

    def probe(self, config: EngineConfig, timeout: float, /) -> str:
        """Checks that the engine can be used, within `timeout` seconds and without a model call. Returns what it found.

        Raises ProbeFailed.
        """


class ProbeFailed(Exception):
    """The engine can't be used."""

    def __init__(self, found: str, todo: str, trouble: ModelUnavailable | None = None) -> None:
        super().__init__(found)
        self.todo = todo  #: what a person can do about it
        self.trouble = trouble  #: if a call would certainly meet the same: what it would raise


class Cause(StrEnum):
    """Why a model can't be asked now."""

    OVERLOADED = "overloaded"  #: the model or the network failed on this call; another call may succeed
    GARBLED = "garbled"  #: the response is not a valid answer; if retries get the same, this call may be the reason
    BUSY = "busy"  #: its rate limit is in use, so the call must wait; nothing is wrong
    CROWDED = "crowded"  #: the limit of concurrent calls is reached; nothing is wrong
    RATE = "rate"  #: the model answered that it gets too many requests
    SHED = "shed"  #: it has no capacity for this call in the tier `economy`; nothing is wrong
    QUOTA = "quota"  #: its daily quota is used up
    MODEL = "model"  #: there is no such model for this key
    ACCOUNT = "account"  #: a bad key, no credit or a wrong region, so no model of this engine can be asked
    ADDRESS = "address"  #: what answers at the address is not the model's API
    AWAY = "away"  #: nothing answers at the address, or a proxy answers in its place

    @property
    def needs_person(self) -> bool:
        """Whether waiting alone does not help, because somebody has to correct a setting or pay a bill."""
        return self in {Cause.MODEL, Cause.ACCOUNT, Cause.ADDRESS}

    @property
    def ends_held(self) -> bool:
        """Whether a request that somebody holds open should end: see docs/adr/0027."""
        return self.needs_person or self is Cause.AWAY


WAITS = " The job waits until this is mended."  #: the end of a notice, which is left out if the job ends instead


class ModelUnavailable(Exception):
    """The model can't be asked now. As with `pipeline.errors.Transient`, the step is retried later, and the retry is not counted."""

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
        self.notice = notice  #: for the job's warnings, if a person has to act (a bad key, no credit)
        self.cause = cause
        self.status = status  #: of the HTTP response, if there was one


class ModelFault(Exception):
    """The model failed on this call (HTTP 500). The call may be the cause."""


class MoneySpent(Exception):
    """The call was not made, because the money of its job does not suffice for it."""

    def __init__(self, message: str, code: ItemCode = ItemCode.MONEY_LIMIT_REACHED) -> None:
        super().__init__(message)
        self.code = code  #: the code with which the call's images fail


class ModelRefused(Exception):
    """The model will never accept this call (HTTP 400 and the like)."""
