"""The objects in the answers of the API, as `cli.client` gives them, and the functions that read them from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset({"succeeded", "partial", "failed", "cancelled"})  #: the statuses of a job that has ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many images of a job have which outcome."""

    total: int
    succeeded: int
    failed: int

    @property
    def done(self) -> int:
        return self.succeeded + self.failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a job has cost so far."""

    credits: int
    model_calls: int
    money: float  #: dollars


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as the service shows it."""

    id: str
    status: str  #: queued, running, finalizing, succeeded, partial, failed or cancelled
    progress: float  #: 0 to 1
    counts: Counts
    spent: Spent
    created_at: str | None  #: RFC 3339, in UTC
    error: str  #: why the job failed; empty if it did not
    error_code: str  #: empty if it did not fail
    warnings: tuple[str, ...]  #: what the job waits for, and what the service could not follow
    metadata: Mapping[str, Any] | None  #: the caller's own
    raw: Mapping[str, Any] = field(repr=False)  #: the whole object

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the service's OCR says about the record of an image."""

    places: Mapping[str, Any] | None  #: JSON Pointer → where the value stands
    unsupported: tuple[str, ...]  #: pointers of the values that do not stand in the picture
    code: str  #: why it says little or nothing; empty if it does not
    error: str  #: the same in words
    needs_review: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image of a job."""

    index: int  #: position in the request's images, from 0
    custom_id: str | None
    status: str  #: queued, running, succeeded or failed
    code: str | None  #: why it failed
    message: str | None
    result: Any  #: the record, or the answer's text
    evidence: Evidence | None = None  #: None: the job has no evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a request would cost."""

    images: int
    model_calls: int
    input_tokens: int
    output_tokens: int
    credits: int
    money: float  #: dollars
    money_by_tier: Mapping[str, float]  #: dollars if all calls are served in that tier, for each tier that the model has
    warnings: tuple[str, ...]

    @property
    def economy(self) -> float | None:
        """Dollars in the tier economy. None: the model has no such tier."""
        return self.money_by_tier.get("economy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Formats:
    """What the service takes, and its prices in credits."""

    max_images: int  #: for each request, like max_total_bytes
    max_image_bytes: int
    max_total_bytes: int
    credits_base: int  #: for each job of which an image was processed
    credits_per_image: int
    raw: Mapping[str, Any] = field(repr=False)  #: the whole object


def read_job(body: Mapping[str, Any]) -> Job:
    """Reads a job. The shortest form, which the service sends while its database is away, has only id and status."""
    counts, usage, error = body.get("counts") or {}, body.get("usage") or {}, body.get("error") or {}
    return Job(
        id=body["id"],
        status=body["status"],
        progress=body.get("progress", 0.0),
        counts=Counts(**{name: counts.get(name, 0) for name in ("total", "succeeded", "failed")}),
        spent=Spent(credits=usage.get("credits", 0), model_calls=usage.get("modelCalls", 0), money=usage.get("money", 0.0)),
        created_at=body.get("createdAt"),
        error=error.get("message") or "",
        error_code=error.get("code") or "",
        warnings=tuple(str(each) for each in body.get("warnings") or ()),
        metadata=body.get("metadata"),
        raw=body,
    )


def read_item(body: Mapping[str, Any]) -> Item:
    """Reads an item of a job."""
    return Item(
        index=body["index"],
        custom_id=body["customId"],
        status=body["status"],
        code=body["code"],
        message=body["message"],
        result=body["result"],
        evidence=_read_evidence(body) if "evidence" in body else None,
    )


def _read_evidence(body: Mapping[str, Any]) -> Evidence:
    error = body.get("evidenceError") or {}
    return Evidence(
        places=body["evidence"],
        unsupported=tuple(body.get("unsupported") or ()),
        code=error.get("code") or "",
        error=error.get("message") or "",
        needs_review=bool(body.get("needsReview")),
    )


def read_estimate(body: Mapping[str, Any]) -> Estimate:
    """Reads the estimate of a request."""
    return Estimate(
        images=body["images"],
        model_calls=body["modelCalls"],
        input_tokens=body["inputTokens"],
        output_tokens=body["outputTokens"],
        credits=body["credits"],
        money=body["money"],
        money_by_tier=body.get("moneyByTier") or {},
        warnings=tuple(body.get("warnings") or ()),
    )


def read_formats(body: Mapping[str, Any]) -> Formats:
    """Reads what the service says of itself."""
    limits, prices = body["limits"], body["credits"]
    return Formats(
        max_images=limits["maxImages"],
        max_image_bytes=limits["maxImageBytes"],
        max_total_bytes=limits["maxTotalBytes"],
        credits_base=prices["base"],
        credits_per_image=prices["perImage"],
        raw=body,
    )
