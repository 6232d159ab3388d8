"""Jobs and results as the contract shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.types import Failure, JobStatus
from storage.views import JobView, ResultView


def job_json(job: JobView) -> dict[str, Any]:
    """The job object of the API."""
    return {
        "id": job.id,
        "status": job.status.value,
        "progress": round(job.progress, 4),
        "counts": {"total": job.total, "succeeded": job.succeeded, "failed": job.failed},
        "usage": {
            "credits": job.credits,
            "modelCalls": job.usage.model_calls,
            "inputTokens": job.usage.input_tokens,
            "outputTokens": job.usage.output_tokens,
            "cacheHits": job.usage.cache_hits,
            "money": round(job.usage.nanodollars / 1e9, 6),
            "modelVersion": job.usage.model_version or None,
        },
        "createdAt": _time(job.created_at),
        "startedAt": _time(job.started_at),
        "finishedAt": _time(job.finished_at),
        "expiresAt": _time(job.expires_at),
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "warnings": list(job.warnings),
        "links": links_json(job.id),
    }


def result_json(job: JobView, result: ResultView) -> dict[str, Any]:
    """The compatible answer: four keys, and `errors` where images failed."""
    body: dict[str, Any] = {
        "results": result.result,
        "prompt": result.prompt,
        "imageCount": 0 if job.status is JobStatus.FAILED else job.succeeded,
        "creditUsage": job.credits,
    }
    if result.failures:
        body["errors"] = errors_json(result.failures)
    return body


def links_json(job: str) -> dict[str, str]:
    """Where a job and what came of it can be read."""
    return {"self": f"/api/v1/jobs/{job}", "results": f"/api/v1/jobs/{job}/results"}


def errors_json(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    return [{"index": failure.index, "code": failure.code.value, "message": failure.detail} for failure in failures]


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
