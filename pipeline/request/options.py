"""What a request says about its job, beside the question that it asks. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.request.check import RequestFault

LONGEST_CUSTOM_ID = 256  #: characters
MOST_METADATA = 4096  #: bytes as JSON: it goes out with each webhook, whose body has 20 kB
DEEPEST_METADATA = 20  #: objects and arrays in each other
MOST_CREDITS = 1_000_000_000  #: what `maxCredits` may say


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """How a job is to be kept and paid for."""

    custom_ids: tuple[str, ...] | None = None  #: the caller's names of the images, in their order
    fail_on_error: bool = False  #: all images or nothing
    max_credits: int | None = None  #: the most that the job may cost
    metadata: dict[str, Any] | None = None  #: the caller's own, echoed


def check_options(fields: Mapping[str, Any], images: int) -> JobOptions:
    """The options in `fields` (decoded JSON) of a request with that many images. Raises RequestFault."""
    return JobOptions(
        custom_ids=_custom_ids(fields.get("customIds"), images),
        fail_on_error=_on_error(fields.get("onError")),
        max_credits=_max_credits(fields.get("maxCredits")),
        metadata=_metadata(fields.get("metadata")),
    )


def is_text(value: Any) -> bool:
    """Whether it is a string that every database takes."""
    return isinstance(value, str) and not any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in value)


def _custom_ids(value: Any, images: int) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != images:
        have = f", this request has {len(value)}" if isinstance(value, list) else ""
        raise RequestFault("invalid_custom_ids", f"customIds must be an array of {images} strings, one for each image{have}.")
    for index, custom_id in enumerate(value):
        if not is_text(custom_id) or not 1 <= len(custom_id) <= LONGEST_CUSTOM_ID:
            text = f"customIds[{index}] must be a string of 1 to {LONGEST_CUSTOM_ID} characters."
            raise RequestFault("invalid_custom_ids", text)
    return tuple(value)


def _on_error(value: Any) -> bool:
    if value is None or (isinstance(value, str) and value in {"partial", "fail"}):
        return value == "fail"
    raise RequestFault("invalid_on_error", 'onError must be "partial" or "fail".')


def _max_credits(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 12:  # as deadlineSeconds: forms send strings
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_CREDITS:
        raise RequestFault("invalid_max_credits", f"maxCredits must be a whole number from 0 to {MOST_CREDITS}.")
    return value


def _metadata(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RequestFault("invalid_metadata", "metadata must be an object.")
    if _depth(value) > DEEPEST_METADATA:
        raise RequestFault("invalid_metadata", f"metadata may have {DEEPEST_METADATA} objects and arrays in each other.")
    size = len(json.dumps(value, separators=(",", ":")))
    if size > MOST_METADATA:
        raise RequestFault("invalid_metadata", f"metadata has {size} bytes as JSON; the most is {MOST_METADATA}.")
    return value


def _depth(value: Any) -> int:
    """How many objects and arrays are in each other; without recursion, since a caller decides."""
    deepest, left = 0, [(value, 1)]
    while left and deepest <= DEEPEST_METADATA:
        inner, depth = left.pop()
        if isinstance(inner, dict | list):
            deepest = max(deepest, depth)
            left += [(each, depth + 1) for each in (inner.values() if isinstance(inner, dict) else inner)]
    return deepest
