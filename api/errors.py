"""Every refusal is JSON, whatever the Accept header says, because existing clients list HTML and XML in it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from api.addresses import right_address
from pipeline.errors import StorageFull, Transient

log = structlog.get_logger(__name__)

COMPATIBLE = "/api/v1/extract-image"
LONGEST_REASON = 300  #: characters of a part's own words in the log
PROBLEM = "application/problem+json"


_JOB = re.compile(r"job_\w{1,40}")


class ApiError(Exception):
    """Refuses the request with this status, code and message."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code  #: stable
        self.message = message  #: what is wrong, where, and how to fix it
        self.headers = headers or {}
        self.hint = hint  #: a sentence more about how to fix it, where the compatible endpoint's text may not change


UNAUTHORIZED = ApiError(401, "unauthorized", "Invalid or missing Authorization header", {"WWW-Authenticate": "Bearer"})


def register(app: Flask) -> None:
    """Turns each exception into a JSON answer."""
    app.register_error_handler(ApiError, _logged)
    app.register_error_handler(HTTPException, _werkzeug)
    app.register_error_handler(Exception, _unexpected)


#: Writes JSON. The numbers of records keep the digits that the model gave (`pipeline/numbers.py`).
encode_json = msgspec.json.Encoder(decimal_format="number").encode


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(body), status, {"Content-Type": "application/json", **(headers or {})})


def _logged(error: ApiError) -> Response:
    """Logs the refusal in one line. The line has the rule of the address and not the address, which may hold anything."""
    job = str((request.view_args or {}).get("job", ""))
    log.info(
        "request_refused",
        status=error.status,
        code=error.code,
        method=request.method,
        route=str(request.url_rule or ""),
        **({"job": job} if _JOB.fullmatch(job) else {}),  # otherwise it is no id of ours, and may be anything
    )
    return _refused(error)


def _refused(error: ApiError) -> Response:
    """The compatible endpoint answers only `{"error"}`, the others add the code. A client that asks for it gets RFC 9457."""
    headers = {**error.headers, "X-Error-Code": error.code}
    hinted = f"{error.message}. {error.hint}" if error.hint else error.message
    if _wants_problem():
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": hinted,
            "error": error.message,
            "code": error.code,
        }
        return json_response(problem, error.status, {**headers, "Content-Type": PROBLEM})
    body = {"error": error.message}
    if request.path.rstrip("/") != COMPATIBLE:
        body = {"error": hinted, "code": error.code}
    return json_response(body, error.status, headers)


def _wants_problem() -> bool:
    """Whether the Accept header names problem details. A wildcard does not count."""
    return any(name.partition(";")[0].strip().lower() == PROBLEM and quality > 0 for name, quality in request.accept_mimetypes)


def _werkzeug(error: HTTPException) -> Response:
    """Answers Flask's own refusals, such as 404 and 405. A malformed request that Flask finds is answered with 400, as ours are."""
    status = error.code or 500
    if status in {413, 415, 422}:
        status = 400
    phrase = HTTPStatus(status).phrase
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    text = error.description or phrase
    if status == HTTPStatus.NOT_FOUND:
        text = f"There is nothing at this address.{right_address(request.method, request.path, current_app.url_map)}"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = sorted(set(headers.get("Allow", "").split(", ")) - {"", "HEAD", "OPTIONS"})
        text = f"{request.method} is not possible at this address; use {' or '.join(methods)}."
    return _logged(ApiError(status, phrase.lower().replace(" ", "_"), text, headers))


def _code_of(error: Transient) -> str:
    return "storage_full" if isinstance(error, StorageFull) else "unavailable"


def _unexpected(error: Exception) -> Response:
    """Logs the cause and answers with a stable code. If a part of the service is away, Retry-After says when to try again."""
    if isinstance(error, Transient):  # its cause is outside of this process, so a traceback helps nobody
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        log.error("request_failed", route=str(request.url_rule or ""), code=_code_of(error), reason=reason)
    else:
        log.error("request_failed", route=str(request.url_rule or ""), code="internal_error", exc_info=error)
    if isinstance(error, StorageFull):
        text = (
            "The service has no room left for images or rows; nothing was accepted or charged. Whoever runs it has to make some."
        )
        return _refused(ApiError(503, "storage_full", text, {"Retry-After": "60"}))
    if isinstance(error, Transient):
        text = "A part that this service needs is away; nothing was accepted or charged. Try again."
        return _refused(ApiError(503, "unavailable", text, {"Retry-After": "5"}))
    text = "An internal error; the service's log has the cause."
    if request.path.rstrip("/") == COMPATIBLE:
        text = f"Failed to extract image data: {text}"
    return _refused(ApiError(500, "internal_error", text))
