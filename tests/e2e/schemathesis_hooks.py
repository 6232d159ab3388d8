"""For schemathesis: what /openapi.json can't say of a request that is right, since JSON Schema can't."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """A `customIds` for each image, `maxCredits` that are enough, a `webhookUrl` that may be called: in requests that are
    meant to be right."""
    if case.meta and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        images = case.body.get("images")
        count = len(images) if isinstance(images, list) else 1
        if case.body.get("customIds") is not None:
            case.body["customIds"] = [f"image {number}" for number in range(count)]
        if isinstance(case.body.get("maxCredits"), int | float):
            case.body["maxCredits"] = max(case.body["maxCredits"], 10 + count)
        if isinstance(case.body.get("webhookUrl"), str) and case.body["webhookUrl"].strip():
            case.body["webhookUrl"] = "https://hooks.example/"
    return case
