"""GET /api/v1/jobs/<job>/request: the fields that a job was asked with, so that the same can be asked again."""

from __future__ import annotations

from flask import Blueprint, Response

from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi.document import ResponseSpec, describe
from api.paging import own_job
from api.wiring import WebParts
from storage.job.listing import request_of_job


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("job_request", __name__)

    @routes.get("/api/v1/jobs/<job>/request")
    @describe(
        "What a job was asked",
        tag="Jobs",
        answers=[ResponseSpec(status=200, what="The fields of its request, without its images.", schema="JobRequest")],
        errors=["not_found"],
    )
    def show(job: str) -> Response:
        """Answers with the fields of the request, whether they were sent or have their default. The images are among the job's items."""
        account = authenticate(parts)
        view = own_job(parts, job, account)
        with parts.database.read() as connection:
            asked = request_of_job(connection, view.id)
        if asked is None:
            raise ApiError(404, "not_found", "There is no such job.")
        question = asked.question
        return json_response(
            {
                "inputMethod": "form" if asked.input_method == "upload" else asked.input_method,
                "prompt": question.prompt,
                "jsonMode": question.json_mode,
                "granularity": "perImage" if question.per_image else "merged",
                "schema": question.schema,
                "merge": question.merge,
                "imagesPerCall": question.images_per_call,
                "cache": question.cache,
                "evidence": asked.evidence is not None,
                "reviewWhen": asked.evidence or None,
                "model": question.model or None,
                "fallbackModels": list(question.fallback_models) or None,
                "detail": question.detail.value,
                "thinking": question.thinking.value if question.thinking else None,
                "onError": "fail" if asked.fail_on_error else "partial",
                "tier": asked.tier,
                "deadlineSeconds": asked.deadline_ms // 1000,
                "keepInputsSeconds": asked.keep_ms // 1000,
                "maxMoney": None if asked.max_money is None else asked.max_money / 1e9,
                "webhookUrl": asked.webhook_url,
                "metadata": view.metadata,
                "name": view.name,
                "batch": view.batch,
            }
        )

    return routes
