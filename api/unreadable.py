"""The answers to requests that gunicorn can't read: JSON, as all other refusals are."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from gunicorn.http import errors

from api.errors import COMPATIBLE, encode_json
from storage.account.accounts import random_id

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """Why a request can't be read. The text is fixed, because what was sent may hold a key."""

    status: int
    code: str
    text: str


BAD_REQUEST = Unreadable(status=400, code="bad_request", text="This is not a valid HTTP/1.1 request.")
_KNOWN: tuple[tuple[type[Exception], Unreadable], ...] = (
    (
        errors.LimitRequestLine,
        Unreadable(status=414, code="uri_too_long", text="The address is too long: the request line may have 4094 bytes."),
    ),
    (
        errors.LimitRequestHeaders,
        Unreadable(
            status=431,
            code="headers_too_large",
            text="The headers are too large: 100 headers of 8190 bytes, and 32 kB together, are allowed.",
        ),
    ),
    (
        errors.UnsupportedTransferCoding,
        Unreadable(
            status=501,
            code="not_implemented",
            text="This Transfer-Encoding is not supported. Send the body with a Content-Length header.",
        ),
    ),
    (
        errors.ExpectationFailed,
        Unreadable(status=417, code="expectation_failed", text="The only Expect header that is supported is 100-continue."),
    ),
    (errors.InvalidRequestMethod, Unreadable(status=400, code="bad_request", text="This is not a valid HTTP method.")),
    (
        errors.InvalidHeaderName,
        Unreadable(status=400, code="bad_request", text="The name of a header has a character that is not allowed."),
    ),
    (
        errors.InvalidHeader,
        Unreadable(
            status=400, code="bad_request", text="A header is not valid, or is there more than once, or a line ends wrongly."
        ),
    ),
)


def refusal_of(error: BaseException, target: bytes = b"") -> bytes | None:
    """The whole answer to a request that raised `error` as it was read. None if the error is no fault of the request.

    `target`: the path that the request names, as far as it is known. The compatible endpoint's refusals have no `code`.
    """
    if not isinstance(error, errors.ParseException) or isinstance(
        error, errors.ConfigurationProblem | errors.InvalidResponseHeader | errors.InvalidResponseHeaderName
    ):
        return None
    found = next((unreadable for kind, unreadable in _KNOWN if isinstance(error, kind)), BAD_REQUEST)
    request_id = random_id("req_", 16)
    log.info("request_refused", status=found.status, code=found.code, reason=type(error).__name__, request=request_id)
    return answer(found, request_id, target)


def answer(found: Unreadable, request_id: str, target: bytes) -> bytes:
    """The bytes of an answer after which the connection is closed."""
    body: dict[str, Any] = {"error": found.text}
    if target.rstrip(b"/") != COMPATIBLE.encode():
        body["code"] = found.code
    text = encode_json(body)
    head = (
        f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\nX-Error-Code: {found.code}\r\nX-Request-Id: {request_id}\r\n\r\n"
    )
    return head.encode() + text


INTERNAL = Unreadable(status=500, code="internal_error", text="An internal error; the service's log has the cause.")
