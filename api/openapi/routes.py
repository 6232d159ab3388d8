"""The routes that describe the API: /openapi.json for programs, /docs for people."""

from __future__ import annotations

from functools import cache

import msgspec
from flask import Blueprint, Flask, Response, request

from api.errors import ApiError
from api.openapi.building import text
from api.openapi.docs_page import CONTENT_SECURITY_POLICY, SCRIPT, compressed_script, page, script
from api.openapi.document import TITLE, ResponseSpec, describe, document

NOSNIFF = {"X-Content-Type-Options": "nosniff"}
KEPT_FOR_GOOD = "public, max-age=31536000, immutable"


def blueprint(app: Flask, pictures: str) -> Blueprint:
    """`pictures`: the address of the pictures that examples of requests name."""
    routes = Blueprint("describing", __name__)

    @cache
    def openapi_json() -> bytes:
        return msgspec.json.encode(document(app, pictures))

    @routes.get("/openapi.json")
    @describe(
        "This description",
        tag="About",
        key="none",
        answers=[
            ResponseSpec(
                status=200,
                what="The OpenAPI 3.1 document.",
                schema={"type": "object", "additionalProperties": True},
                example={"openapi": "3.1.0", "info": {"title": TITLE, "version": "0.1.0"}, "paths": {}},
            )
        ],
    )
    def openapi() -> Response:
        return Response(openapi_json(), content_type="application/json")

    @routes.get("/")
    @describe(
        "The way to the page for people",
        tag="About",
        key="none",
        answers=[ResponseSpec(status=302, what="Leads to /console.", headers=("Location",))],
    )
    def start() -> Response:
        return Response(status=302, headers={"Location": "/console"})

    @routes.get("/docs")
    @describe(
        "This description, for people",
        tag="About",
        key="none",
        answers=[
            ResponseSpec(
                status=200,
                what="A page that loads nothing from other hosts.",
                schema=text(),
                media=["text/html"],
                example='<!doctype html>\n<html lang="en">…</html>',
            )
        ],
    )
    def docs() -> Response:
        headers = {**NOSNIFF, "Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
        return Response(page(TITLE), content_type="text/html; charset=utf-8", headers=headers)

    @routes.get("/docs/<asset>")
    @describe(
        "The script of the page for people",
        tag="About",
        key="none",
        errors=["not_found"],
        answers=[
            ResponseSpec(
                status=200,
                what="The script.",
                schema=text(),
                media=["text/javascript"],
                example="(function () { … })();",
            )
        ],
    )
    def docs_asset(asset: str) -> Response:
        if asset != SCRIPT:
            raise ApiError(404, "not_found", f"/docs loads nothing but /docs/{SCRIPT}.")
        headers = {**NOSNIFF, "Cache-Control": KEPT_FOR_GOOD, "Vary": "Accept-Encoding"}
        if request.accept_encodings["gzip"] <= 0:
            return Response(script(), content_type="text/javascript; charset=utf-8", headers=headers)
        headers["Content-Encoding"] = "gzip"
        return Response(compressed_script(), content_type="text/javascript; charset=utf-8", headers=headers)

    return routes
