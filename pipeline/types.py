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
MAX_IMAGES_PER_CALL = 50  #: where each image has a record of its own: accuracy falls with more

MergeMode = Literal["auto", "concat", "synthesize"]


class ItemCode(StrEnum):
    """Why one image has no answer: stable, public (docs/reference)."""

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
    CANCELLED = "cancelled"
    INTERNAL_ERROR = "internal_error"


#: Codes that are the caller's to mend: a request in which every image has one of these is a 400.
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
    SUCCEEDED = "succeeded"  #: every image processed
    PARTIAL = "partial"  #: some images processed
    FAILED = "failed"  #: none, or the request could not be kept
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.CANCELLED})


class Form(StrEnum):
    """What the model is asked to answer with."""

    TEXT = "text"  #: one text about all images of the call
    JSON = "json"  #: one JSON document about all images of the call
    RECORDS = "records"  #: a JSON array with one {"index", "result"} for each image of the call


class Detail(StrEnum):
    """How closely the model looks at each picture: what it costs in tokens is in pipeline/models.py."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One image that has no answer: data, never an exception."""

    index: int  #: place in the request's `images`, from 0
    code: ItemCode  #: stable
    detail: str  #: one sentence for the caller: what, and how to mend it


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """The bytes behind one URL or base64 text, not yet known to be an image."""

    index: int  #: place in the request's `images`, from 0
    data: bytes  #: as received


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What the decoder says of an image it could decode."""

    data: bytes  #: what goes to the model: the bytes as received, or a PNG or JPEG made of them
    mime: str  #: of `data`: image/png, image/jpeg, image/webp, image/heic or image/heif
    width: int  #: pixels, after orientation is applied
    height: int  #: pixels, after orientation is applied
    source_format: str  #: what the magic bytes said: PNG, JPEG, TIFF, ...
    note: str = ""  #: what the item says beside its answer (pipeline.notes)
    seconds: float = field(default=0.0, compare=False)  #: it held a decoder; of small images one may have others' too


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What the decoder says of bytes it could not make an image of."""

    code: ItemCode
    detail: str  #: one sentence for the caller, without the image's index
    seconds: float = field(default=0.0, compare=False)  #: as in Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image as a model is shown it."""

    number: int  #: its label in the call: `Image <number>:`
    mime: str  #: one of the five native types
    data: bytes  #: encoded
    width: int = 0  #: pixels; 0 if unknown
    height: int = 0  #: pixels; 0 if unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One model request."""

    prompt: str  #: the user's as sent; behind it, in a call that asks again, what was wrong the last time
    form: Form
    json_mode: bool  #: with RECORDS: each result is JSON, not text
    pictures: tuple[Picture, ...]  #: in job order; none where earlier answers, which the prompt holds, are made one
    schema: Mapping[str, Any] | None = None  #: with RECORDS: JSON Schema of each result
    timeout: float  #: seconds for the whole call
    model: str = ""  #: which one is asked; empty: the engine's own
    fallback_models: tuple[str, ...] = ()  #: asked in turn where the one before can't be asked
    detail: Detail = Detail.HIGH
    waited: bool = False  #: the job's caller holds a connection: goes before others


class Finish(StrEnum):
    """How a model call that got an answer ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  #: the output limit was reached: the text must not be used
    BLOCKED = "blocked"  #: refused for its content; `Answer.code` says which item code
    UNREADABLE = "unreadable"  #: the model could not process one of the pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back from one model call."""

    finish: Finish
    text: str = ""  #: only with COMPLETE
    code: ItemCode | None = None  #: with BLOCKED and UNREADABLE: what the culprit fails with
    detail: str = ""  #: with the others than COMPLETE: the model's word for it, e.g. "SAFETY"
    input_tokens: int = 0
    output_tokens: int = 0  #: thinking included: it is billed so
    model_version: str = ""
    nanodollars: int = 0  #: what it cost by the prices of the settings, in billionths of a dollar
    reencoded: frozenset[int] = frozenset()  #: numbers of the pictures that the model does not take as they were
    notes: Mapping[int, str] = field(
        default_factory=dict
    )  #: what the engine noted of pictures, by their numbers (pipeline.notes)


def storable(text: str) -> str:
    """The text without what neither UTF-8 nor every database can hold: lone surrogates, and NUL (in Postgres).
    One of them in one answer must not cost the job all the others."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What model calls cost, summed."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_hits: int = 0  #: images answered without a call
    nanodollars: int = 0  #: by the prices of the settings when each call was made, in billionths of a dollar
    model_version: str = ""  #: those that answered, each once, with commas between

    @classmethod
    def of(cls, answer: Answer) -> Usage:
        """Of one call that was answered."""
        return cls(
            model_calls=1,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            nanodollars=answer.nanodollars,
            model_version=answer.model_version,
        )

    def plus(self, other: Usage) -> Usage:
        return Usage(
            model_calls=self.model_calls + other.model_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_hits=self.cache_hits + other.cache_hits,
            nanodollars=self.nanodollars + other.nanodollars,
            model_version=_each_once(self.model_version, other.model_version),
        )


def _each_once(*versions: str) -> str:
    return ", ".join(dict.fromkeys(version for text in versions for version in text.split(", ") if version))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One usable answer and the images it speaks of."""

    indexes: tuple[int, ...]  #: places in the request's `images`, ascending
    text: str  #: as the model gave it; valid JSON where the form asks for it
    result: Any = None  #: with RECORDS: the one image's own result


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a job asks of the model, the same for each of its calls."""

    prompt: str  #: as sent
    json_mode: bool = False
    per_image: bool = False  #: one result for each image, instead of merged answers
    schema: dict[str, Any] | None = None  #: JSON Schema of each image's result; only with `per_image`
    merge: MergeMode = "auto"  #: how merged answers of several calls become one
    images_per_call: int | None = None  #: at most; None: as the settings say
    cache: bool = False  #: records that were answered before will do
    model: str = ""  #: as Call has it
    fallback_models: tuple[str, ...] = ()
    detail: Detail = Detail.HIGH

    @property
    def form(self) -> Form:
        if self.per_image:
            return Form.RECORDS
        return Form.JSON if self.json_mode else Form.TEXT


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """One image that lies ready in its chunk's scratch object."""

    index: int  #: place in the request's `images`, from 0
    mime: str  #: as it goes to the model
    size: int  #: bytes, as it goes to the model
    received: int  #: bytes, as it was fetched or decoded from base64
    sha256: str  #: hex, of the bytes as received
    width: int  #: pixels
    height: int  #: pixels
    note: str = ""  #: as in Prepared
