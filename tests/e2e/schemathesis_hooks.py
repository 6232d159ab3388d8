"""For schemathesis: what /openapi.json can't say of a request that is right, since JSON Schema can't."""

from __future__ import annotations

from typing import Any

import schemathesis

from config.settings import Settings

MODEL = Settings.model_fields["model"].default


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """A `customIds` for each image, `maxCredits` that are enough, a `webhookUrl` that may be called, a `schema` that is one,
    models that the service has: in requests that are meant to be right."""
    if case.meta and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        images = case.body.get("images")
        count = len(images) if isinstance(images, list) else 1
        if case.body.get("customIds") is not None:
            case.body["customIds"] = [f"image {number}" for number in range(count)]
        if isinstance(case.body.get("maxCredits"), int | float):
            case.body["maxCredits"] = max(case.body["maxCredits"], 10 + count)
        if isinstance(case.body.get("webhookUrl"), str) and case.body["webhookUrl"].strip():
            case.body["webhookUrl"] = "https://hooks.example/"
        if case.body.get("schema") is not None:
            case.body["schema"] = {"type": "object"}
            case.body.pop("granularity", None)  # it can't be merged beside a schema
        if case.body.get("model") is not None:
            case.body["model"] = MODEL
        if case.body.get("fallbackModels") not in (None, []):
            case.body["fallbackModels"] = [MODEL]
    return case
