"""Reads a small JSON object that is the body of a request."""

from __future__ import annotations

from typing import Any

from flask import request

from api.body import BodyRoom, read_body
from api.errors import ApiError
from api.wiring import WebParts
from pipeline.numbers import read_json
from pipeline.request.fields import is_storable
from pipeline.types import MB


def read_object(parts: WebParts, account: str) -> dict[str, Any]:
    """The object in the body, at most 1 MB. Its numbers keep their digits. Raises ApiError 400, 411 or 429."""
    room = BodyRoom(account=account, arriving=parts.arriving, large_bodies=parts.large_bodies)
    with read_body(request, min(parts.settings.max_body, MB), room) as body:
        text = bytes(body)
    try:
        value = read_json(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ApiError(400, "invalid_json", "The body must be a JSON object, in UTF-8.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "invalid_json", "The body must be a JSON object.")
    if not _is_text(value):  # no database stores a NUL or half a character
        raise ApiError(400, "invalid_json", "The body has characters that are no Unicode text.")
    return value


def _refuse(name: str) -> None:
    raise ValueError(name)


def _is_text(value: Any) -> bool:
    """Whether all texts in a JSON value are Unicode text without NUL."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, str) and not is_storable(inner):
            return False
        if isinstance(inner, dict):
            left += [*inner, *inner.values()]
        elif isinstance(inner, list):
            left += inner
    return True
