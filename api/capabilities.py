"""GET /api/v1/capabilities: what the engine and each model can do, the limits, and what keeps requests from being answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version

from flask import Blueprint, Response

from api.auth import authenticate
from api.errors import json_response
from api.health import Probe, faults_of
from api.openapi.document import ResponseSpec, describe
from api.wiring import WebParts
from config.engines import EngineKind
from pipeline.credits import BASE, PER_IMAGE, reservation
from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.errors import PartError
from pipeline.models import Model
from pipeline.ports import WAITS
from pipeline.request.fields import LONGEST_CUSTOM_ID, LONGEST_PROMPT, MOST_METADATA
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_IMAGES_PER_CALL, MAX_OUTPUT_TOKENS, MAX_TOTAL_BYTES, Tier
from storage.account.accounts import available_credits

#: The name of a check of /readyz → what the caller can't do meanwhile. How the part fails is for the operator, at /readyz.
_AWAY = {
    "database": "The database does not answer, so nothing can be accepted or read.",
    "redis": "Redis does not answer, so new jobs start late.",
    "scratch": "The store of images does not answer, so no image can be accepted.",
}
_FIX_PART = "Whoever runs the service sees the cause at /readyz on its machine, and in its log."
_FIX_MODEL = "Correct in the service's settings what is named here. Jobs wait until then, and start by themselves."
_FIX_CREDITS = "Grant some: extract-image credits grant, with the account and an amount."


def blueprint(parts: WebParts, probes: Mapping[str, Probe]) -> Blueprint:
    """`probes`: those of /readyz."""
    routes = Blueprint("capabilities", __name__)

    @routes.get("/api/v1/capabilities")
    @describe(
        "What can be asked, and what keeps it from being answered",
        tag="Account",
        answers=[ResponseSpec(status=200, what="The engine, its models, the limits, the problems.", schema="Capabilities")],
    )
    def show() -> Response:
        """Answers with what a form for requests needs: which fields have an effect, and what would go wrong now."""
        account = authenticate(parts)
        with parts.database.read() as connection:
            available = available_credits(connection, account)
        faults = faults_of(probes)
        notices: Mapping[str, str] = {}
        with suppress(PartError):  # the problem of Redis is named already
            notices = parts.notices()
        models = [
            {
                "name": model.name,
                "default": place == 0,
                "engine": parts.engine,
                "price": _price(model),
                "problem": _notice_of(model, notices),
                "can": _abilities(parts.kind, model),
            }
            for place, model in enumerate(parts.models.values())
        ]
        return json_response(
            {
                "version": version("extract-image"),
                "engine": parts.engine,
                "models": models,
                "limits": _limits(parts),
                "credits": {"base": BASE, "perImage": PER_IMAGE, "available": available},
                "keepInputsMaxSeconds": int(parts.settings.max_input_ttl),
                "cache": parts.settings.cache_ttl > 0,
                "ready": not any(faults.values()),
                "problems": _problems(faults, _notice_of(next(iter(parts.models.values())), notices), available),
                "warnings": list(parts.warnings),
            }
        )

    return routes


def _price(model: Model) -> dict[str, float | None] | None:
    """Dollars for a million tokens, today, and the fraction of it in the tier economy. None if the settings have no price."""
    if not model.has_price:
        return None
    day = datetime.now(UTC).date()
    return {
        "input": model.price(input_tokens=1_000_000, output_tokens=0, day=day) / 1e9,
        "output": model.price(input_tokens=0, output_tokens=1_000_000, day=day) / 1e9,
        "economy": model.fraction(Tier.ECONOMY, day) if model.has_tier(Tier.ECONOMY, day) else None,
    }


def _notice_of(model: Model, notices: Mapping[str, str]) -> str | None:
    """What somebody must correct before the model can be asked."""
    notice = notices.get("") or notices.get(model.name)
    return notice.removesuffix(WAITS) if notice else None


def _abilities(kind: EngineKind, model: Model) -> dict[str, object]:
    """What a request may ask of the model. The values of `detail` and `thinking` are those that have an effect."""
    return {
        "prompt": kind.follows_prompts,
        "schema": kind.fills_schemas,
        "detail": list(kind.details),
        "thinking": list(kind.thinking),
        "tiers": [tier.value for tier in Tier if model.has_tier(tier, datetime.now(UTC).date())],
    }


def _limits(parts: WebParts) -> dict[str, float]:
    settings = parts.settings
    return {
        "imagesPerRequest": MAX_IMAGES,
        "imageBytes": MAX_IMAGE_BYTES,
        "totalBytes": MAX_TOTAL_BYTES,
        "bodyBytes": settings.max_body,
        "imagePixels": MAX_PIXELS,
        "imageSide": MAX_SIDE,
        "imagesPerCall": MAX_IMAGES_PER_CALL,
        "outputTokensPerCall": MAX_OUTPUT_TOKENS,
        "promptChars": LONGEST_PROMPT,
        "customIdChars": LONGEST_CUSTOM_ID,
        "metadataBytes": MOST_METADATA,
        "openJobs": settings.max_open_jobs,
        "requestsPerWindow": parts.rate.amount,
        "windowSeconds": parts.rate.get_expiry(),
        "waitSeconds": int(settings.sync_wait),
        "resultSeconds": int(settings.result_ttl),
    }


def _problems(faults: Mapping[str, str | None], notice: str | None, available: int) -> list[dict[str, str]]:
    """What keeps this account's requests from being answered. The words are those that jobs show in their warnings."""
    found = [
        {"code": f"{name}_away", "what": _AWAY[name], "fix": _FIX_PART}
        for name, fault in faults.items()
        if fault and name in _AWAY
    ]
    if faults.get("model"):
        what = notice or "The model can't be asked now."
        found.append({"code": "model_away", "what": what, "fix": _FIX_MODEL})
    if available < reservation(1):
        what = f"The account has {available} credits, and a request of one image holds {reservation(1)}."
        found.append({"code": "insufficient_credits", "what": what, "fix": _FIX_CREDITS})
    return found
