"""For schemathesis: what /openapi.json can't say of a request that is right, since JSON Schema can't."""

from __future__ import annotations

import base64
from typing import Any

import schemathesis

from config.settings import Settings
from pipeline.request.fields import LONGEST_DEADLINE
from pipeline.types import Tier

URL = "https://images.example/receipt.jpg"
PICTURE = base64.b64decode("R0lGODdhAQABAIAAAAAAAAAAACwAAAAAAQABAAACAkQBADs=")  # a GIF of one pixel
MODEL = Settings.model_fields["model"].default


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Mends requests that are meant to be right: a picture for the preview, no odd days, a correction that has something, a `customIds` for each image, URLs where `inputMethod` says so, `maxCredits` that
    are enough, a time that the tier allows, records for `evidence`, a `webhookUrl` that may be called, a `schema` that is one, models that the service has."""
    if case.meta and case.meta.generation.mode.is_positive:
        for name in ("from", "to"):
            (case.query or {}).pop(name, None)
        if case.path == "/api/v1/preview":
            case.body = PICTURE
        if (
            case.method.upper() == "PATCH"
            and isinstance(case.body, dict)
            and not case.body.keys() & {"record", "changes", "checked"}
        ):
            case.body["checked"] = True
    if case.meta and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        images = case.body.get("images")
        count = len(images) if isinstance(images, list) else 1
        if isinstance(images, list) and case.body.get("inputMethod") == "url":
            case.body["images"] = [one if str(one).startswith("http") else URL for one in images]
        if case.body.get("customIds") is not None:
            case.body["customIds"] = [f"image {number}" for number in range(count)]
        if isinstance(case.body.get("maxCredits"), int | float):
            case.body["maxCredits"] = max(case.body["maxCredits"], 10 + count)
        if isinstance(case.body.get("deadlineSeconds"), int | float) and case.body.get("tier") != Tier.ECONOMY:
            case.body["deadlineSeconds"] = min(case.body["deadlineSeconds"], LONGEST_DEADLINE[Tier.STANDARD])
        if isinstance(case.body.get("webhookUrl"), str) and case.body["webhookUrl"].strip():
            case.body["webhookUrl"] = "https://hooks.example/"
        if case.body.get("reviewWhen") is not None:
            case.body["evidence"] = True
        if case.body.get("evidence"):
            case.body["schema"] = {}  # evidence needs a record for each image
        if case.body.get("schema") is not None:
            case.body["schema"] = {"type": "object"}
            case.body.pop("granularity", None)  # it can't be merged beside a schema
        if case.body.get("model") is not None:
            case.body["model"] = MODEL
        if case.body.get("fallbackModels") not in (None, []):
            case.body["fallbackModels"] = [MODEL]
    return case


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leaves out requests that are meant to be wrong and are taken, because of `image` beside `images`.

    The service ignores `image` beside `images`, whatever it is. If `images` is null, it counts as missing, as in all fields; the
    description leaves that out, because clients that are made from it need not send it.
    """
    negative = case.meta and case.meta.generation.mode.is_negative
    if not negative or not isinstance(case.body, dict) or not {"image", "images"} <= case.body.keys():
        return True
    image = case.body["image"]
    return case.body["images"] is not None and isinstance(image, str) and bool(image.strip())
