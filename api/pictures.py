"""Shows pictures, re-encoded by a decoder child: one that a request sends, and the image of a job while it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO

from flask import Blueprint, Response, request

from api.auth import authenticate
from api.body import BodyRoom, expected_length, pieces
from api.errors import ApiError
from api.openapi.building import number, text
from api.openapi.document import Parameter, ResponseSpec, describe
from api.openapi.error_codes import OF_BODIES, OF_PICTURES
from api.paging import asked, asked_item, own_job, whole_between
from api.wiring import WebParts
from pipeline.errors import os_errors
from pipeline.packed import PackReader
from pipeline.request.base64_text import decode_texts
from pipeline.types import MAX_IMAGE_BYTES, MB, Failure, Refused
from storage.job.inputs import StoredImage, stored_image

NARROWEST, USUAL, WIDEST = 64, 1024, 2048  #: pixels of width
INPUTS_GONE = "inputs_gone"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "private, no-store",
}
WIDTH = Parameter(
    name="width",
    schema=number(minimum=NARROWEST, maximum=WIDEST),
    what=f"The most pixels across, by default {USUAL}. A picture is never made larger.",
)
OCTETS = "application/octet-stream"  #: for a client that asks for it; generators of clients know no image/jpeg
PICTURE = ResponseSpec(
    status=200,
    what="The picture, upright, re-encoded as JPEG. The bytes are never those that were sent.",
    schema=text(format="binary"),
    media=["image/jpeg"],
    others={OCTETS: text(format="binary")},
    headers=("X-Image-Width", "X-Image-Height"),
)


class _Gone(Exception):
    """The image is not in scratch."""


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("pictures", __name__)

    @routes.post("/api/v1/preview")
    @describe(
        "Show a picture that is not sent as a job",
        tag="Extract",
        details="For formats that browsers do not show, such as HEIC and TIFF. It costs no credits, and nothing is kept.",
        parameters=[WIDTH],
        bodies={OCTETS: "Picture"},
        answers=[PICTURE],
        errors=[
            *OF_PICTURES,
            "invalid_width",
            *OF_BODIES,
            "too_many_previews",
        ],
    )
    def preview() -> Response:
        """Answers with the picture that the body is, re-encoded. A picture that a job would refuse is refused with its item code."""
        account = authenticate(parts)
        width = _asked_width()
        length = expected_length(request, parts.settings.max_body)
        if length > MAX_IMAGE_BYTES:
            raise ApiError(400, "image_too_large", f"The image has {length} bytes; the most is {MAX_IMAGE_BYTES}.")
        room = BodyRoom(account=account, arriving=parts.arriving, large_bodies=parts.large_bodies)
        with os_errors(), tempfile.SpooledTemporaryFile(max_size=MB) as file:
            with room.for_arriving(request.environ, length):
                for piece in pieces(request.stream, length):
                    file.write(piece)
            return _shown(parts, account, lambda: _whole(file), width, "preview.jpg")

    @routes.get("/api/v1/jobs/<job>/items/<item>/image")
    @describe(
        "The picture of an image of a job",
        tag="Jobs",
        parameters=[WIDTH],
        answers=[PICTURE],
        errors=["not_found", "invalid_width", (410, INPUTS_GONE), "too_many_previews", *OF_PICTURES],
    )
    def image(job: str, item: str) -> Response:
        """Answers with the picture while it is kept: while the job runs, and after it for `keepInputsSeconds`."""
        account = authenticate(parts)
        view = own_job(parts, job, account)
        index, width = asked_item(view, item), _asked_width()
        with parts.database.read() as connection:
            place = stored_image(connection, job, index)
        if place is None:
            raise _inputs_gone()
        try:
            return _shown(parts, account, lambda: _stored(parts, place, index), width, f"image-{index}.jpg")
        except _Gone:
            raise _inputs_gone() from None

    return routes


def _asked_width() -> int:
    given = asked("width")
    if given == "":
        return USUAL
    width = whole_between(given, NARROWEST, WIDEST)
    if width is None:
        raise ApiError(400, "invalid_width", f"width must be a whole number from {NARROWEST} to {WIDEST}.")
    return width


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _stored(parts: WebParts, place: StoredImage, index: int) -> bytes:
    """The image's bytes. Raises _Gone."""
    try:
        with os_errors(), parts.scratch.open(place.key) as source:
            pack = PackReader(source)
            if place.staged:
                return pack.read(index)
            outcome = next(decode_texts(pack, [index]))
    except (FileNotFoundError, KeyError):
        raise _Gone from None
    return b"" if isinstance(outcome, Failure) else outcome.data


def _shown(parts: WebParts, account: str, read: Callable[[], bytes], width: int, name: str) -> Response:
    """The picture. Raises ApiError 400 with the item code of a picture that can't be shown."""
    outcome = parts.previews.make(account, read, width=width)
    if isinstance(outcome, Refused):
        raise ApiError(400, outcome.code.value, outcome.detail)
    headers = {
        **HEADERS,
        "Content-Disposition": f'inline; filename="{name}"',
        "X-Image-Width": str(outcome.width),
        "X-Image-Height": str(outcome.height),
    }
    content_type = OCTETS if OCTETS in request.headers.get("Accept", "") else outcome.mime
    return Response(outcome.data, content_type=content_type, headers=headers)


def _inputs_gone() -> ApiError:
    message = (
        "The image is not kept. Images that are sent as base64 or as files are kept after their job's end if the request has "
        "keepInputsSeconds; images sent by URL never are, so look at their source."
    )
    return ApiError(410, INPUTS_GONE, message)
