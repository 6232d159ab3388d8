"""POST /api/v1/extract-image/estimate: what a request would cost."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.auth import authenticate
from api.body import read_body
from api.errors import json_response
from api.extract_image import plan_of, wanted_of
from api.wiring import Parts
from pipeline.estimate import estimate


def blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("estimate", __name__)

    @routes.post("/api/v1/extract-image/estimate", strict_slashes=False)
    def show() -> Response:
        """What the same body would cost at /api/v1/extract-image. Nothing is run, fetched or kept."""
        authenticate(parts)
        with read_body(request, parts.settings.max_body, parts.large_bodies) as body:
            wanted = wanted_of(parts, body)
            reckoned = estimate(wanted, plan=plan_of(parts, wanted), model=parts.models[wanted.question.model])
        return json_response(
            {
                "images": reckoned.images,
                "modelCalls": reckoned.model_calls,
                "inputTokens": reckoned.input_tokens,
                "outputTokens": reckoned.output_tokens,
                "credits": reckoned.credits,
                "money": round(reckoned.nanodollars / 1e9, 6),
            }
        )

    return routes
