"""The values that flow through a job. Frozen, keyword-only, standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

MB = 1024 * 1024
MAX_IMAGES = 3000
MAX_IMAGE_BYTES = 20 * MB
MAX_TOTAL_BYTES = 100 * MB
MAX_OUTPUT_TOKENS = 8192
MAX_IMAGES_PER_CALL = 50  #: if each image gets its own record, because accuracy falls with more

MergeMode = Literal["auto", "concat", "synthesize"]


class ItemCode(StrEnum):
    """Why one image has no answer. The codes are public and stable (docs/reference)."""

    URL_NOT_ALLOWED = "url_not_allowed"
    FETCH_FAILED = "fetch_failed"
    FETCH_TIMEOUT = "fetch_timeout"
    IMAGE_TOO_LARGE = "image_too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    IMAGE_EMPTY = "image_empty"
    IMAGE_CORRUPT = "image_corrupt"
    IMAGE_TOO_MANY_PIXELS = "image_too_many_pixels"
    IMAGE_TOO_COMPLEX = "image_too_complex"
    IMAGE_CRASHED_DECODER = "image_crashed_decoder"
    WORKER_CRASHED = "worker_crashed"
    SAFETY_BLOCKED = "safety_blocked"
    RECITATION = "recitation"
    OUTPUT_TRUNCATED = "output_truncated"
    SCHEMA_MISMATCH = "schema_mismatch"
    MODEL_REFUSED = "model_refused"
    MODEL_UNAVAILABLE = "model_unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MONEY_LIMIT_REACHED = "money_limit_reached"
    CANCELLED = "cancelled"
    INTERNAL_ERROR = "internal_error"


#: Codes that only the caller can fix. If every image of a request has one of them, the answer is a 400.
INPUT_FAULTS = frozenset(
    {
        ItemCode.URL_NOT_ALLOWED,
        ItemCode.FETCH_FAILED,
        ItemCode.FETCH_TIMEOUT,
        ItemCode.IMAGE_TOO_LARGE,
        ItemCode.UNSUPPORTED_FORMAT,
        ItemCode.IMAGE_EMPTY,
        ItemCode.IMAGE_CORRUPT,
        ItemCode.IMAGE_TOO_MANY_PIXELS,
        ItemCode.IMAGE_TOO_COMPLEX,
        ItemCode.IMAGE_CRASHED_DECODER,
    }
)


class JobStatus(StrEnum):
    """The states of a job, as the API shows them."""

    QUEUED = "queued"
    RUNNING = "running"
    FINALIZING = "finalizing"
    SUCCEEDED = "succeeded"  #: every image was processed
    PARTIAL = "partial"  #: some images were processed
    FAILED = "failed"  #: no image was processed, or the job failed as a whole
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.CANCELLED})


class ImageState(StrEnum):
    """The states of an image within its job."""

    WAITING = "waiting"  #: not staged yet
    STAGED = "staged"  #: it is stored in its chunk's scratch object
    DONE = "done"  #: it has a reply
    FAILED = "failed"  #: it has an ItemCode


class StepKind(StrEnum):
    """What a step of a job does."""

    STAGE = "stage"  #: fetches or decodes the images of a chunk
    EXTRACT = "extract"  #: asks the model about the images of a chunk
    GROUND = "ground"  #: looks for the records of a chunk in what the OCR reads in its images
    FINALIZE = "finalize"  #: merges the replies and closes the job
    CLEANUP = "cleanup"  #: deletes the job's scratch objects
    WEBHOOK = "webhook"  #: delivers the event of the job's end


class Review(StrEnum):
    """Why a person should look at an image: the words of `reviewWhen`."""

    UNSUPPORTED = "unsupported"  #: a value of its record does not stand in the picture
    LOW_CONFIDENCE = "lowConfidence"  #: the OCR read a value with little confidence, or can't read the picture's script
    FAILED = "failed"  #: the image failed, or the OCR failed on it


class StepState(StrEnum):
    """The states of a step. docs/architecture.md has the diagram."""

    READY = "ready"  #: a worker may claim it when it is due
    LEASED = "leased"  #: a worker has claimed it
    DONE = "done"
    DEAD = "dead"  #: it failed too often and is not retried
    SPLIT = "split"  #: two steps replace it, one for each half of its chunk
    CANCELLED = "cancelled"  #: its job ended before it was done


class Form(StrEnum):
    """The form of a model's answer."""

    TEXT = "text"  #: one text about all images of the call
    JSON = "json"  #: one JSON document about all images of the call
    RECORDS = "records"  #: a JSON array with one {"index", "result"} for each image of the call


class Detail(StrEnum):
    """How closely the model looks at each picture. pipeline/models.py has the cost in tokens."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    ULTRA = "ultra"


class Thinking(StrEnum):
    """How much the model thinks before it answers. Thoughts are billed as output, and count towards its limit."""

    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Tier(StrEnum):
    """How a call is served. Its server answers a call in `economy` later and for less money, and may refuse it at any time."""

    STANDARD = "standard"
    ECONOMY = "economy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One image that has no answer. A failed image is a value and never an exception."""

    index: int  #: position in the request's `images`, from 0
    code: ItemCode  #: stable
    detail: str  #: one sentence for the caller: what is wrong, and how to fix it


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """The bytes of one URL, base64 text or file. They may not be an image."""

    index: int  #: position in the request's `images`, from 0
    data: bytes  #: as received


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """The decoder's result for an image that it could decode."""

    data: bytes  #: sent to the model: the bytes as received, or a PNG or JPEG made from them
    mime: str  #: of `data`: image/png, image/jpeg, image/webp, image/heic or image/heif
    width: int  #: pixels, after orientation is applied
    height: int  #: pixels, after orientation is applied
    source_format: str  #: by the magic bytes: PNG, JPEG, TIFF, ...
    note: str = ""  #: a remark for the image's item (pipeline.notes)
    #: How long it used a decoder. Small images are decoded together, so one of them may have the time of others too.
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The decoder's result for bytes that it could not decode."""

    code: ItemCode
    detail: str  #: one sentence for the caller, without the image's index
    seconds: float = field(default=0.0, compare=False)  #: as in Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image in the form that is sent to a model."""

    number: int  #: its label in the call: `Image <number>:`
    mime: str  #: one of the five native types
    data: bytes  #: encoded
    width: int = 0  #: pixels; 0 if unknown
    height: int = 0  #: pixels; 0 if unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One model request."""

    prompt: str  #: the caller's prompt; a call that asks again adds what was wrong the last time
    form: Form
    json_mode: bool  #: with RECORDS: each result is JSON, not text
    pictures: tuple[Picture, ...]  #: in job order; empty if the call merges earlier answers, which are in the prompt
    schema: Mapping[str, Any] | None = None  #: with RECORDS: JSON Schema of each result
    timeout: float  #: seconds for the whole call
    model: str = ""  #: empty: the engine's default model
    fallback_models: tuple[str, ...] = ()  #: asked in this order if the models before can't be asked
    detail: Detail = Detail.HIGH
    thinking: Thinking | None = None  #: None: the model's own default
    waited: bool = False  #: the job's caller holds a connection open, so this call goes before others
    tier: Tier = Tier.STANDARD  #: the tier that is asked for; `economy` only if the model has it (pipeline.models)


class Finish(StrEnum):
    """How a model call ended that got an answer."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  #: the output limit was reached, so the text must not be used
    BLOCKED = "blocked"  #: refused because of its content; `Answer.code` is the item code
    UNREADABLE = "unreadable"  #: the model could not process one of the pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer of one model call."""

    finish: Finish
    text: str = ""  #: only with COMPLETE
    code: ItemCode | None = None  #: with BLOCKED and UNREADABLE: the code that the refused image fails with
    detail: str = ""  #: with every finish but COMPLETE: the model's reason, e.g. "SAFETY"
    input_tokens: int = 0
    output_tokens: int = 0  #: including thinking, because it is billed as output
    model_version: str = ""
    tier: Tier = Tier.STANDARD  #: the tier in which the server says that it served the call; it decides the price
    nanodollars: int = 0  #: the cost by the prices in the settings, in billionths of a dollar
    reencoded: frozenset[int] = frozenset()  #: numbers of the pictures that the model got as a re-encoded JPEG
    at_most: int | None = None  #: with UNREADABLE: the call had too many pictures, and this many may fit
    notes: Mapping[int, str] = field(
        default_factory=dict
    )  #: the engine's notes about pictures, by their numbers (pipeline.notes)


def storable(text: str) -> str:
    """The text with lone surrogates and NUL replaced, because UTF-8 can't hold the first and Postgres can't hold the second.

    Otherwise one such character in one answer would make the whole job fail.
    """
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """The summed cost of model calls."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_hits: int = 0  #: images answered without a call
    nanodollars: int = 0  #: by the prices in the settings at the time of each call, in billionths of a dollar
    economy_calls: int = 0  #: those of `model_calls` that were served in the tier `economy`
    economy_nanodollars: int = 0  #: their part of `nanodollars`
    model_version: str = ""  #: all versions that answered, without repetitions, separated by commas

    @classmethod
    def of(cls, answer: Answer) -> Usage:
        """The usage of one call that was answered."""
        is_economy = answer.tier is Tier.ECONOMY
        return cls(
            model_calls=1,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            nanodollars=answer.nanodollars,
            economy_calls=int(is_economy),
            economy_nanodollars=answer.nanodollars if is_economy else 0,
            model_version=answer.model_version,
        )

    def to_store(self) -> dict[str, Any]:
        """What is stored as JSON: `stored` reads it.

        Zeros are left out. So a version that does not know a value meets it only in jobs that use it.
        """
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def stored(cls, kept: Mapping[str, Any]) -> Usage:
        """The usage that was stored as JSON, by this version or another one.

        While processes are updated one after another, a value may be missing, or there may be one that this version does not know.
        """
        return cls(**{name: kept[name] for name in cls.__dataclass_fields__ if name in kept})

    def plus(self, other: Usage) -> Usage:
        return Usage(
            model_calls=self.model_calls + other.model_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_hits=self.cache_hits + other.cache_hits,
            nanodollars=self.nanodollars + other.nanodollars,
            economy_calls=self.economy_calls + other.economy_calls,
            economy_nanodollars=self.economy_nanodollars + other.economy_nanodollars,
            model_version=_each_once(self.model_version, other.model_version),
        )


def _each_once(*versions: str) -> str:
    return ", ".join(dict.fromkeys(version for text in versions for version in text.split(", ") if version))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One usable answer and the images that it is about."""

    indexes: tuple[int, ...]  #: positions in the request's `images`, ascending
    text: str  #: as the model gave it; valid JSON if the form is JSON
    result: Any = None  #: with RECORDS: the one image's own result


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a job asks the model. It is the same for each of the job's calls."""

    prompt: str  #: as sent
    json_mode: bool = False
    per_image: bool = False  #: one result for each image, instead of merged answers
    schema: dict[str, Any] | None = None  #: JSON Schema of each image's result; only with `per_image`
    merge: MergeMode = "auto"  #: how merged answers of several calls become one
    images_per_call: int | None = None  #: at most; None: the limit of the settings
    cache: bool = False  #: cached records may be used
    model: str = ""  #: as in Call
    fallback_models: tuple[str, ...] = ()
    detail: Detail = Detail.HIGH
    thinking: Thinking | None = None  #: as Call has it

    @property
    def form(self) -> Form:
        if self.per_image:
            return Form.RECORDS
        return Form.JSON if self.json_mode else Form.TEXT


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """One image that is stored in its chunk's scratch object."""

    index: int  #: position in the request's `images`, from 0
    mime: str  #: of the data that is sent to the model
    size: int  #: bytes of the data that is sent to the model
    received: int  #: bytes that were fetched, decoded from base64, or uploaded
    sha256: str  #: hex, of the bytes as received
    width: int  #: pixels
    height: int  #: pixels
    note: str = ""  #: as in Prepared
