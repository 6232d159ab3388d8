"""The routes of the console. Every page is one document, and its scripts ask the public API."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, request

from api.console import minify
from api.errors import ApiError
from api.openapi.building import text
from api.openapi.document import ResponseSpec, describe

ASSETS = Path(__file__).with_name("assets")
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE = "index.html"
#: Scripts and styles are served without comments and needless white space, so that their source can have both.
MINIFIERS: dict[str, Callable[[str], str]] = {".css": minify.style, ".js": minify.script}

#: Nothing comes from elsewhere, and nothing inline runs. Pictures are fetched with the key, so they are shown from `blob:` addresses.
#: `require-trusted-types-for` refuses every text that a script would hand to the browser as HTML.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
KEPT_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One file that a browser loads."""

    content_type: str
    content: bytes
    compressed: bytes  #: the same content by gzip


def blueprint() -> Blueprint:
    routes = Blueprint("console", __name__)

    @routes.get("/console")
    @describe(
        "The console",
        tag="About",
        key="none",
        answers=[
            ResponseSpec(
                status=200,
                what="A page that loads nothing from other hosts. It asks for a key.",
                schema=text(),
                media=["text/html"],
                example='<!doctype html>\n<html lang="en">…</html>',
            )
        ],
    )
    def page() -> Response:
        """Answers with the page. It names its assets by the version, so it must be asked for anew each time."""
        return _answer(_page(), "no-cache")

    @routes.get("/console/<version>/<file>")
    @describe(
        "A script, a style or a picture of the console",
        tag="About",
        key="none",
        errors=["not_found"],
        answers=[
            ResponseSpec(
                status=200,
                what="The asset.",
                schema=text(),
                media=["text/javascript", "text/css", "image/svg+xml"],
                example='export const version = "…";',
            )
        ],
    )
    def asset(version: str, file: str) -> Response:
        """Answers with one asset of this version. Another version's page is old: loading the page again mends it."""
        found = assets().get(file)
        if found is None or version != version_of_assets() or file == PAGE:
            raise ApiError(404, "not_found", "The console has no such file. Load /console again.")
        return _answer(found, KEPT_FOR_GOOD)

    return routes


@cache
def assets() -> dict[str, Asset]:
    """Every file of the console as it is served, by its name. They are made at the first request, and kept."""
    return {path.name: _asset(path.suffix, path.read_bytes()) for path in sorted(ASSETS.iterdir()) if path.suffix in TYPES}


@cache
def version_of_assets() -> str:
    """Changes with every change of a file, because browsers keep the files for good."""
    together = hashlib.sha256()
    for name, asset in assets().items():
        together.update(name.encode() + b"\0" + asset.content + b"\0")
    return together.hexdigest()[:12]


@cache
def _page() -> Asset:
    return _asset(".html", assets()[PAGE].content.replace(b"VERSION", version_of_assets().encode()))


def _asset(suffix: str, content: bytes) -> Asset:
    shorter = MINIFIERS.get(suffix)
    if shorter is not None:
        content = shorter(content.decode()).encode()
    return Asset(content_type=TYPES[suffix], content=content, compressed=gzip.compress(content, 9, mtime=0))


def _answer(asset: Asset, kept: str) -> Response:
    headers = {**HEADERS, "Cache-Control": kept, "Vary": "Accept-Encoding"}
    if request.accept_encodings["gzip"] <= 0:
        return Response(asset.content, content_type=asset.content_type, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(asset.compressed, content_type=asset.content_type, headers=headers)
