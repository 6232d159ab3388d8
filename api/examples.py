"""The pictures of `examples/`, which `serve --ready-key` serves to this machine, so that the documents' examples work as they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flask import Blueprint, Response

from api.errors import ApiError
from api.health import may_see_details
from api.openapi.building import text
from api.openapi.document import ResponseSpec, describe
from api.wiring import WebParts

FOLDER = Path(__file__).resolve().parents[1] / "examples"
#: The endings of the files that are served.
ENDINGS = {".gif", ".heic", ".jpg", ".png", ".tiff", ".webp"}
#: Not the picture's own type, because `openapi-python-client` knows no answers of other types. Nothing here looks at the type.
TYPE = "application/octet-stream"


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("examples", __name__)

    @routes.get("/examples/<name>")
    @describe(
        "A picture to try the service with",
        tag="About",
        key="none",
        errors=["not_found"],
        answers=[
            ResponseSpec(
                status=200,
                what="The picture. Only requests from this machine get it.",
                schema=text(format="binary"),
                media=[TYPE],
                example="the bytes of a picture",
            )
        ],
    )
    def picture(name: str) -> Response:
        """Answers with a picture of the folder."""
        if not may_see_details(parts) or name not in _names():
            raise ApiError(404, "not_found", "There is no such example.")
        return Response((FOLDER / name).read_bytes(), content_type=TYPE, headers={"X-Content-Type-Options": "nosniff"})

    return routes


@cache
def _names() -> frozenset[str]:
    """The pictures that are there. An installed package has none: they are part of a checkout."""
    return frozenset(path.name for path in FOLDER.glob("*") if path.suffix in ENDINGS)
