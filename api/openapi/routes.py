"""What the service says of itself: /openapi.json for programs, /docs for people."""

from __future__ import annotations

from functools import cache

import msgspec
from flask import Blueprint, Flask, Response

from api.openapi.docs_page import CONTENT_SECURITY_POLICY, page
from api.openapi.document import ResponseSpec, describe, document
from api.openapi.schemas import text


def blueprint(app: Flask) -> Blueprint:
    routes = Blueprint("describing", __name__)

    @cache
    def openapi_json() -> bytes:
        return msgspec.json.encode(document(app))

    @cache
    def docs_html() -> str:
        return page(document(app))

    @routes.get("/openapi.json")
    @describe(
        "This description",
        tag="About",
        key="none",
        answers=[ResponseSpec(status=200, what="OpenAPI 3.1.", schema={"type": "object"})],
    )
    def openapi() -> Response:
        return Response(openapi_json(), content_type="application/json")

    @routes.get("/docs")
    @describe(
        "This description, for people",
        tag="About",
        key="none",
        answers=[ResponseSpec(status=200, what="A page that loads nothing else.", schema=text(), media=["text/html"])],
    )
    def docs() -> Response:
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return Response(docs_html(), content_type="text/html; charset=utf-8", headers=headers)

    return routes
