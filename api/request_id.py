"""Gives each request an id, which is in its answer, in its log lines, and on the job that it makes."""

from __future__ import annotations

import re

import structlog
from flask import Flask, Response, g, request

from storage.account.accounts import random_id

HEADER = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")  #: ids that are safe in a log and in a header


def register(app: Flask) -> None:
    """Gives every request of the app its id, before other code sees the request."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _SANE.fullmatch(given) else random_id("req_", 16)
        # Clear the variables here and not at the end of the request, because a streamed answer is made after that.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=g.request_id)

    @app.after_request
    def name(response: Response) -> Response:
        response.headers[HEADER] = g.request_id
        return response
