"""What the tools answer with. The schemas of these models are the tools' output schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from pydantic import BaseModel, Field

from cli.client import Client, Item, Job

MOST_ITEMS = 50  #: images in one answer, because an agent's context is small
MOST_TEXT = 50_000  #: characters of a merged answer in one answer of a tool


class ImageAnswer(BaseModel):
    """One image and what was read in it, or why nothing was."""

    index: int = Field(description="Its place among the images of the job, from 0.")
    name: str | None = Field(description="The file's name or the URL.")
    status: str = Field(description="queued, running, succeeded or failed.")
    result: Any = Field(default=None, description="The record, or the text.")
    code: str | None = Field(default=None, description="Why it failed, for programs.")
    message: str | None = Field(default=None, description="Why it failed, and how to mend it.")
    unsupported: list[str] | None = Field(
        default=None, description="With evidence: JSON Pointers of the values that do not stand in the picture."
    )
    evidence_error: str | None = Field(
        default=None, alias="evidenceError", description="With evidence: why it says little or nothing about this image."
    )
    needs_review: bool | None = Field(
        default=None, alias="needsReview", description="With evidence: whether a person should look at this image."
    )


class JobAnswer(BaseModel):
    """A job and as many of its images as fit in an answer."""

    job_id: str = Field(alias="jobId")
    status: str = Field(description="queued, running or finalizing; then succeeded, partial, failed or cancelled.")
    total: int = Field(description="Images of the job.")
    succeeded: int
    failed: int
    credits: int = Field(description="Charged so far.")
    money: float = Field(description="Dollars that the model calls have cost so far.")
    merged: str | None = Field(default=None, description="The one answer about all images, if the job makes one.")
    images: list[ImageAnswer] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    next_step: str = Field(alias="nextStep", description="What to do next.")


class EstimateAnswer(BaseModel):
    """What a call of `extract` would cost at most."""

    images: int
    model_calls: int = Field(alias="modelCalls")
    input_tokens: int = Field(alias="inputTokens")
    output_tokens: int = Field(alias="outputTokens")
    credits: int = Field(description="Use it as maxCredits.")
    money: float = Field(description="Dollars for the model calls.")
    money_by_tier: dict[str, float] = Field(
        alias="moneyByTier", description="Dollars if all model calls are served in that tier, for each tier that the model has."
    )
    warnings: list[str] = Field(default_factory=list)


class UsageAnswer(BaseModel):
    """The credits of the account."""

    available: int = Field(description="Credits that can be spent.")
    held: int = Field(description="Credits held by jobs that have not ended.")
    charged: int = Field(description="Credits spent ever.")
    days: list[dict[str, Any]] = Field(description="Credits charged and jobs ended by day, the newest first.")


def job_answer(client: Client, job: Job, *, first: int = 0, only_failed: bool = False) -> JobAnswer:
    """The job with its images from index `first` on, or with only those that failed."""
    found = client.items(job.id, status="failed" if only_failed else "", page=500)
    shown = (
        [] if not only_failed and not job.ended else list(islice((item for item in found if item.index >= first), MOST_ITEMS + 1))
    )
    images, more = shown[:MOST_ITEMS], shown[MOST_ITEMS:]
    merged = None if only_failed or not _is_merged(job, images) else _merged(client, job)
    return JobAnswer(
        jobId=job.id,
        status=job.status,
        total=job.counts.total,
        succeeded=job.counts.succeeded,
        failed=job.counts.failed,
        credits=job.spent.credits,
        money=job.spent.money,
        merged=merged,
        images=[image_answer(item) for item in images],
        warnings=[*job.warnings, *([job.error] if job.error else [])],
        nextStep=_next_step(job, more, only_failed=only_failed),
    )


def image_answer(item: Item) -> ImageAnswer:
    found = item.evidence
    return ImageAnswer(
        index=item.index,
        name=item.custom_id,
        status=item.status,
        result=item.result,
        code=item.code,
        message=item.message,
        unsupported=list(found.unsupported) if found else None,
        evidenceError=found.error or None if found else None,
        needsReview=found.needs_review if found else None,
    )


def _is_merged(job: Job, images: Iterable[Item]) -> bool:
    """Whether the job's answer is about all images together: no image that succeeded has a result of its own."""
    done = [item for item in images if item.status == "succeeded"]
    return job.status in {"succeeded", "partial"} and bool(done) and all(item.result is None for item in done)


def _merged(client: Client, job: Job) -> str:
    with client.results(job.id) as pieces:
        text = str(json.loads(b"".join(pieces))["results"])
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} … (cut: the answer has {len(text)} characters)"


def _next_step(job: Job, more: list[Item], *, only_failed: bool) -> str:
    if not job.ended and job.raw.get("tier") == "economy":
        return (
            f"The job is not done: answers in the tier economy may take until its deadline. Tell the user the jobId {job.id}, and call "
            "get_job with it when the user asks for the results; do not call extract again."
        )
    if not job.ended:
        return f"The job is not done. Call get_job with jobId {job.id} to wait for it; do not call extract again."
    if more:
        tool = "list_failed" if only_failed else "get_job"
        return f"There are more images. Call {tool} with jobId {job.id} and firstIndex {more[0].index}."
    if job.counts.failed:
        until = job.raw.get("inputsExpireAt")
        kept = f" Uploaded images can be retried until {until}." if until else ""
        failed = "1 image failed, and says" if job.counts.failed == 1 else f"{job.counts.failed} images failed; each says"
        return (
            f"{failed} why. If the cause has passed (a fetch or the model failed), call retry with "
            f"jobId {job.id}. If the image itself is at fault, tell the user.{kept}"
        )
    return "All images were processed. Nothing is left to do."
