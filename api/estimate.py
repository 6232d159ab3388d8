"""POST /api/v1/extract-image/estimate: estimates what a request would cost."""

from __future__ import annotations

from flask import Blueprint, Response

from api.accept import NO_PRICE, estimate_of, plan_of, read_sent, wanted_of
from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi.document import ResponseSpec, describe
from api.openapi.error_codes import OF_REQUESTS
from api.openapi.shared import BODIES, REQUEST_ID
from api.wiring import WebParts
from pipeline.job_object import by_tier_json
from pipeline.request.check import RequestFault


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("estimate", __name__)

    @routes.post("/api/v1/extract-image/estimate")
    @describe(
        "Estimate what a request would cost",
        tag="Extract",
        parameters=[REQUEST_ID],
        bodies=BODIES,
        answers=[ResponseSpec(status=200, what="Images, model calls, tokens, credits and money.", schema="Estimate")],
        errors=[*OF_REQUESTS],
    )
    def show() -> Response:
        """Estimates what the same body would cost at /api/v1/extract-image. Nothing is run, fetched or kept."""
        account = authenticate(parts)
        try:
            with read_sent(parts, account) as sent:
                wanted = wanted_of(parts, sent)
                reckoned = estimate_of(parts, wanted, plan_of(parts, wanted))
        except RequestFault as fault:
            raise ApiError(400, fault.code, fault.message) from None
        warnings = [] if wanted.max_money is None or reckoned.priced else [NO_PRICE]
        return json_response(
            {
                "images": reckoned.images,
                "modelCalls": reckoned.model_calls,
                "inputTokens": reckoned.input_tokens,
                "outputTokens": reckoned.output_tokens,
                "credits": reckoned.credits,
                "money": round(reckoned.dollars, 6),
                "moneyByTier": by_tier_json(reckoned.nanodollars),
                **({"warnings": warnings} if warnings else {}),
            }
        )

    return routes
