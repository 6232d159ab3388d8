"""Looks up the caller's own jobs, and reads the query parameters of lists."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from flask import request

from api.errors import ApiError
from api.openapi.building import number, text
from api.openapi.document import Parameter
from api.wiring import WebParts
from pipeline.job_object import JobView
from pipeline.request.fields import is_storable
from storage.job.views import job_view

LONGEST_CURSOR = 200
CODES = {"needsReview": "invalid_needs_review"}  #: of query parameters whose code has another form than `invalid_<name>`
LONGEST_TIME = 40  #: characters


def own_job(parts: WebParts, job: str, account: str) -> JobView:
    """The job, if it is the caller's. Raises ApiError 404 otherwise, also for another account's job."""
    with parts.database.read() as connection:
        view = job_view(connection, job, account)
    if view is None:
        raise ApiError(404, "not_found", "There is no such job.")
    return view


def asked_item(job: JobView, text: str) -> int:
    """The index of the image that a path names. Raises ApiError 404."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) < job.total):
        raise ApiError(404, "not_found", "The job has no such image.")
    return int(text)


def asked(name: str) -> str:
    """The value of this query parameter, "" if it is missing. Raises ApiError 400 if it is there more than once."""
    given = request.args.getlist(name)
    if len(given) > 1:
        raise ApiError(400, CODES.get(name, f"invalid_{name}"), f"{name} may stand once in the query.")
    return given[0] if given else ""


def whole_between(given: str, lowest: int, most: int) -> int | None:
    """The whole number that a text of the query is, None if it is none or not in this range."""
    if not given.isascii() or not given.isdigit() or len(given) > 9:
        return None
    return int(given) if lowest <= int(given) <= most else None


def asked_limit(default: int, most: int) -> int:
    """The query's `limit`: how many entries a page has. Raises ApiError 400."""
    given = asked("limit")
    if given == "":
        return default
    limit = whole_between(given, 1, most)
    if limit is None:
        raise ApiError(400, "invalid_limit", f"limit must be a whole number from 1 to {most}.")
    return limit


def asked_status(known: list[str]) -> str | None:
    """The query's `status`, None if it is missing. Raises ApiError 400."""
    given = asked("status")
    if given == "":
        return None
    if given not in known:
        raise ApiError(400, "invalid_status", f"status must be one of {', '.join(known)}.")
    return given


def asked_text(name: str, longest: int) -> str | None:
    """The text of this query parameter, None if it is missing or empty. Raises ApiError 400."""
    given = asked(name)
    if given == "":
        return None
    if len(given) > longest or not is_storable(given):
        raise ApiError(400, "invalid_filter", f"{name} must be a text of at most {longest} characters.")
    return given


def asked_time(name: str) -> int | None:
    """The time that this query parameter names, in milliseconds since 1970; None if it is missing. A day begins in UTC.

    Raises ApiError 400.
    """
    given = asked(name)
    if given == "":
        return None
    try:
        moment = datetime.fromisoformat(given[: LONGEST_TIME + 1])
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        reason = f"{name} must be a day or a time as RFC 3339 writes it, such as 2026-11-27 or 2026-11-27T08:00:00Z."
        raise ApiError(400, "invalid_time", reason) from None


def cursor_of(*place: int | str) -> str:
    """The value of `cursor` for a place in a list. Callers must not interpret it."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def asked_place(*kinds: type) -> list[Any] | None:
    """The place that the query's `cursor` names, None if it is missing. Raises ApiError 400."""
    given = asked("cursor")
    if given == "":
        return None
    place = _decoded(given[: LONGEST_CURSOR + 1])
    # Refuse every cursor that this service did not make, also one with a value that a database can't take.
    if [type(part) for part in place] != list(kinds) or cursor_of(*place) != given or any(map(_is_too_much, place)):
        raise ApiError(400, "invalid_cursor", "cursor must be a nextCursor of the same list.")
    return place


def _decoded(cursor: str) -> list[Any]:
    """The place in a cursor. Empty if the text is no cursor."""
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        return []
    return place if isinstance(place, list) else []


def _is_too_much(part: Any) -> bool:
    """Whether the part is a number that is too large for a database, or a text that has a NUL or half a character."""
    if isinstance(part, int):
        return not 0 <= part < 1 << 53
    return not is_storable(part)


def list_parameters(statuses: list[str], default: int, most: int) -> list[Parameter]:
    """The query parameters of a list, for the OpenAPI document."""
    return [
        Parameter(name="status", schema=text(enum=statuses), what="Show only those with this status."),
        Parameter(name="limit", schema=number(minimum=1, maximum=most), what=f"How many to show at once, by default {default}."),
        Parameter(name="cursor", schema=text(), what="The `nextCursor` of the page before."),
    ]
