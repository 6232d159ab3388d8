"""The job object as the API's answers and webhooks show it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.types import Failure, JobStatus, Tier, Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A job without its results. An attribute with the name of a column of `jobs_table` has that column's value."""

    id: str
    status: JobStatus
    total: int
    succeeded: int
    failed: int
    progress: float  #: 0 to 1; an image that is staged counts half, and with evidence a third
    credits: int  #: charged so far
    usage: Usage
    created_at: int  #: milliseconds since 1970, like the next three
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    inputs_expire_at: (
        int | None
    )  #: uploaded images are kept until then; milliseconds since 1970; None: none are kept, or the job runs
    expired: bool  #: its results are no longer available
    has_result: bool  #: it has ended with results, which are paid for and still available
    error_code: str | None
    error_message: str | None
    warnings: Sequence[str]
    metadata: dict[str, Any] | None  #: the caller's own
    name: str | None  #: what people call the job
    batch: str | None  #: the caller's id of several jobs that belong together
    tier: str  #: pipeline.types.Tier
    evidence: Sequence[str] | None = None  #: when its images need a review (pipeline.types.Review); None: it has no evidence
    needs_review: int = 0  #: how many images a person should look at


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemEvidence:
    """Where the values of one image's record stand, in a job with evidence."""

    index: int  #: position in the request's `images`, from 0
    custom_id: str | None  #: the caller's name for the image
    places: Mapping[str, Any] | None  #: by JSON Pointer; None: they were not looked for, or may not be shown now
    unsupported: Sequence[str]  #: pointers of the values that do not stand in the picture
    fault: Mapping[str, str] | None  #: code and message: why the evidence says little or nothing
    needs_review: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultView:
    """The result that the compatible endpoint answers with."""

    prompt: str
    result: str
    failures: Sequence[Failure]
    custom_ids: Mapping[int, str]  #: by index: the customId of each failed image that has one
    evidence: Sequence[ItemEvidence] | None = None  #: of each image, in order; None: the job has no evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerView:
    """An ended job as the request that has waited for it needs it."""

    status: JobStatus
    succeeded: int
    credits: int  #: charged so far
    expired: bool  #: its results are no longer available
    error_code: str | None
    error_message: str | None
    result: ResultView


def job_json(job: JobView) -> dict[str, Any]:
    """The job object of the API."""
    return {
        "id": job.id,
        "status": job.status.value,
        "tier": job.tier,
        "progress": round(job.progress, 4),
        "counts": {
            "total": job.total,
            "succeeded": job.succeeded,
            "failed": job.failed,
            **({} if job.evidence is None else {"needsReview": job.needs_review}),
        },
        "usage": {
            "credits": job.credits,
            "modelCalls": job.usage.model_calls,
            "inputTokens": job.usage.input_tokens,
            "outputTokens": job.usage.output_tokens,
            "cacheHits": job.usage.cache_hits,
            "money": round(job.usage.nanodollars / 1e9, 6),
            "moneyByTier": money_by_tier(job.usage.nanodollars, economy=job.usage.economy_nanodollars),
            "modelVersion": job.usage.model_version or None,
        },
        "createdAt": time_json(job.created_at),
        "startedAt": time_json(job.started_at),
        "finishedAt": time_json(job.finished_at),
        "expiresAt": time_json(job.expires_at),
        "inputsExpireAt": time_json(job.inputs_expire_at),
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "warnings": list(job.warnings),
        "metadata": job.metadata,
        "name": job.name,
        "batch": job.batch,
        "links": links_json(job.id),
    }


def money_by_tier(nanodollars: int, *, economy: int) -> dict[str, float]:
    """What calls have cost, by the tier in which they were served. `economy`: the part of `nanodollars` for that tier."""
    return by_tier_json({Tier.STANDARD: nanodollars - economy, Tier.ECONOMY: economy})


def by_tier_json(nanodollars: Mapping[Tier, int]) -> dict[str, float]:
    """Money in dollars, by the names of tiers."""
    return {tier.value: round(money / 1e9, 6) for tier, money in nanodollars.items()}


def result_json(job: JobView | AnswerView, result: ResultView) -> dict[str, Any]:
    """The answer of the compatible endpoint: four keys, `evidence` if it was asked for, and `errors` if images failed."""
    body: dict[str, Any] = {
        "results": result.result,
        "prompt": result.prompt,
        "imageCount": 0 if job.status is JobStatus.FAILED else job.succeeded,
        "creditUsage": job.credits,
    }
    if result.evidence is not None:
        body["evidence"] = [
            {"index": found.index, "customId": found.custom_id, **evidence_json(found)} for found in result.evidence
        ]
    if result.failures:
        body["errors"] = errors_json(result.failures, result.custom_ids)
    return body


def evidence_json(found: ItemEvidence) -> dict[str, Any]:
    """The members of an image that a job with evidence has."""
    return {
        "evidence": None if found.places is None else dict(found.places),
        "unsupported": list(found.unsupported),
        "evidenceError": None if found.fault is None else dict(found.fault),
        "needsReview": found.needs_review,
    }


def links_json(job: str) -> dict[str, str]:
    """The URLs of a job and of what belongs to it."""
    address = f"/api/v1/jobs/{job}"
    return {
        "self": address,
        **{name: f"{address}/{name}" for name in ("events", "items", "results", "deliveries", "cancel", "retry")},
    }


def errors_json(failures: Sequence[Failure], custom_ids: Mapping[int, str]) -> list[dict[str, Any]]:
    """The `errors` array of the API. `custom_ids`: by index, the customId of each image that has one."""
    return [
        {
            "index": failure.index,
            "code": failure.code.value,
            "message": failure.detail,
            **({"customId": custom_ids[failure.index]} if failure.index in custom_ids else {}),
        }
        for failure in failures
    ]


def time_json(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as RFC 3339, in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
