"""Reads a request's body without holding it in memory, and parses it without decoding the images in it.

Measured on a JSON body of 133 MB with 3000 base64 images: slices of the body (`msgspec.Raw`) take 50 ms and 1 MB, typed
decoding 122 ms and 130 MB, the standard library 557 ms and 259 MB.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, overload

import msgspec
from flask import Request
from werkzeug.exceptions import ClientDisconnected

from api.errors import COMPATIBLE, ApiError
from api.not_json import LOOKED_AT, why_not_json
from api.patience import body_is_here, expect_body, read_body_into
from api.places import Places
from api.wiring import LARGE_PLACES
from pipeline.errors import os_errors
from pipeline.request.check import RequestFault
from pipeline.request.fields import FIELDS

IN_MEMORY = 1 << 20  #: bytes; a larger body is written to a temporary file, which is mapped into memory
PIECE = 1 << 18
BUFFER = 1 << 20  #: bytes of a large body that are read at once
#: Commas in a JSON body, of which each value takes one. A full request of 3000 images has some 10,000.
MOST_COMMAS = 300_000
PLACE_SECONDS = 30.0  #: how long a large body that has arrived waits for a place
_DECODED = tuple(name for name in FIELDS if name != "images")  # images stay slices of the body

_IS_TWICE = re.compile(rb'\s*"\s*\{')  #: a JSON text that holds an object
_ENCODED_TWICE = " It is a text that holds one: it was encoded as JSON twice, so encode it once."

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A request's body that has been read."""

    fields: dict[str, Any]  #: the known fields
    images: Sequence[bytes] | None  #: texts of the JSON body, or bytes of the uploaded files
    unknown: Sequence[str] = ()  #: the names of the other fields, which are ignored
    uploaded: bool = False  #: whether the images are files of a form
    names: Sequence[str | None] | None = None  #: of the uploaded files, in the order of `images`; None if nothing was uploaded
    body_hash: str = ""  #: SHA-256 in hex, equal if the same body is sent again; empty if not asked for


class RawStrings(Sequence[bytes]):
    """JSON strings in a body. Each is read and unescaped only when it is used."""

    def __init__(self, raws: list[msgspec.Raw]) -> None:
        self._raws = raws

    def __len__(self) -> int:
        return len(self._raws)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return RawStrings(self._raws[index])
        view = memoryview(self._raws[index])
        if bytes(view[:1]) != b'"':
            raise RequestFault("invalid_images", f"images[{index}] must be a string.{_instead_of(bytes(view))}")
        text = bytes(view[1:-1])  # copied once, because it may have 20 MB and more
        if b"\\" not in text:
            return text
        # Unescape the string, because escapes must not count as bytes of the image. PHP writes \/, and wrapped base64 has \r\n.
        try:
            return _STRING.decode(view).encode()
        except (msgspec.DecodeError, UnicodeError):
            raise RequestFault("invalid_images", f"images[{index}] is no valid JSON string.") from None


def _instead_of(text: bytes) -> str:
    """A sentence, after a space, about what stands where an image must be a string, and how to mend it."""
    if text.startswith(b"{"):
        return ' It is an object: write the URL or the base64 itself, as in "images": ["https://…"].'
    if text.startswith(b"["):
        return " It is an array: write all images in one array."
    return f" It is {text[:20].decode(errors='replace')}: leave it out, or send an image in its place."


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyRoom:
    """The places that an account's body needs: some while it arrives, and one while a large body is parsed and stored."""

    account: str
    arriving: Places
    large_bodies: Places

    @contextmanager
    def for_arriving(self, environ: dict[str, Any], length: int) -> Iterator[None]:
        """Raises ApiError 429 if no place is free. A body that has arrived needs none, unless it is large."""
        if length <= IN_MEMORY and body_is_here(environ):
            yield
            return
        count = LARGE_PLACES if length > IN_MEMORY else 1
        if not self.arriving.take(self.account, count):
            raise ApiError(429, "too_many_bodies", "Too many bodies arrive at once; send fewer at a time.", {"Retry-After": "10"})
        try:
            yield
        finally:
            self.arriving.give_back(self.account, count)

    @contextmanager
    def for_parsing(self, length: int) -> Iterator[None]:
        """Raises ApiError 429 if a large body gets no place in time. More at once only compete for disk and CPU."""
        if length <= IN_MEMORY:
            yield
            return
        if not self.large_bodies.take(self.account, seconds=PLACE_SECONDS):
            text = "Too many large bodies are being read; try again, or send URLs."
            raise ApiError(429, "too_many_large_bodies", text, {"Retry-After": "10"})
        try:
            yield
        finally:
            self.large_bodies.give_back(self.account)


@contextmanager
def read_body(request: Request, max_body: int, room: BodyRoom) -> Iterator[bytes | mmap.mmap]:
    """The request's whole body. A large one takes its place for parsing only when it has arrived.

    Raises ApiError 411 if Content-Length is missing, 400 if the body is over `max_body` or cut short, and 429 if there is no place
    for it. A chunked body is refused, because a body of unknown length that was cut short may still be valid JSON.
    """
    length = expected_length(request, max_body)
    if length <= IN_MEMORY:
        with room.for_arriving(request.environ, length):
            body = b"".join(pieces(request.stream, length))
        yield body
        return
    with (
        room.for_arriving(request.environ, length),
        os_errors(),
        tempfile.TemporaryFile(buffering=0) as file,
        ExitStack() as parsing,
    ):
        _write_body(request, length, file)
        parsing.enter_context(room.for_parsing(length))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield mapped
        finally:
            # Slices of it may still be referenced, for example by a traceback. The file is unmapped when the last one is freed.
            del mapped


def _write_body(request: Request, length: int, file: IO[bytes]) -> None:
    """Writes the body to a file without a buffer. Raises ApiError 400 as `pieces` does."""
    buffer = memoryview(bytearray(BUFFER))
    left = length
    with suppress(ClientDisconnected, ConnectionError):
        while left > 0 and (received := read_body_into(request.environ, request.stream, buffer[:left])):
            piece = buffer[:received]
            while piece:
                piece = piece[file.write(piece) :]
            left -= received
    if left:
        raise _cut_short(length - left, length)


def _cut_short(received: int, length: int) -> ApiError:
    return ApiError(400, "body_cut_short", f"The body ended after {received} of {length} bytes.")


def expected_length(request: Request, max_body: int) -> int:
    """The length of the body in bytes. The client now gets time to send it. Raises ApiError 411 or 400."""
    length = request.content_length
    if length is None or "chunked" in request.headers.get("Transfer-Encoding", "").lower():
        raise ApiError(411, "length_required", "Send the body with a Content-Length header, not chunked.")
    if length > max_body:
        raise ApiError(400, "body_too_large", f"The body has {length} bytes; the most this service takes is {max_body}.")
    expect_body(request.environ, length)
    return length


def pieces(source: IO[bytes], length: int, size: int = PIECE) -> Iterator[bytes]:
    """Yields the next `length` bytes. Raises ApiError 400 if the client stops sending too early or disconnects."""
    left = length
    with suppress(ClientDisconnected, ConnectionError):
        while left > 0 and (piece := source.read(min(size, left))):
            left -= len(piece)
            yield piece
    if left:
        raise _cut_short(length - left, length)


@contextmanager
def read_json(request: Request, max_body: int, room: BodyRoom, *, hashed: bool) -> Iterator[Sent]:
    """Reads a JSON body. Raises RequestFault, and ApiError as `read_body` does."""
    with read_body(request, max_body, room) as body:
        sent = parse_body(body, request.mimetype, request.base_url)
        yield replace(sent, body_hash=hashlib.sha256(body).hexdigest() if hashed else "")


def parse_body(body: bytes | mmap.mmap, media_type: str = "application/json", address: str = COMPATIBLE) -> Sent:
    """The fields, and the images as slices of the body. Raises RequestFault.

    `media_type`: what the Content-Type says. It decides nothing, but tells what a body that is not JSON was meant to be. `address`:
    where it was sent to, for the error's text.
    """
    if _has_too_many_values(body):
        raise RequestFault(
            "invalid_json", f"The body has over {MOST_COMMAS} commas, so it has far more values than any request needs."
        )
    # Some clients put a byte order mark before the JSON.
    raw: bytes | memoryview = memoryview(body)[3:] if body[:3] == b"\xef\xbb\xbf" else memoryview(body)
    try:
        members = _OBJECT.decode(raw)
    except msgspec.ValidationError:
        raise RequestFault(
            "invalid_json", f"The body must be a JSON object.{_ENCODED_TWICE if _IS_TWICE.match(raw) else ''}"
        ) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        text = why_not_json(bytes(raw[:LOOKED_AT]), len(raw), media_type=media_type, address=address, error=error)
        raise RequestFault("invalid_json", text) from None
    fields = {name: _value(name, members[name]) for name in _DECODED if name in members}
    unknown = tuple(name for name in members if name not in FIELDS and name != "image")
    return Sent(fields=fields, images=_images(members), unknown=unknown)


def _has_too_many_values(body: bytes | mmap.mmap) -> bool:
    """Whether the body has over MOST_COMMAS commas.

    A body of 160 MB may hold 80 million numbers. The decoder would hold the interpreter for 20 s and take some gigabytes for them.
    Images have almost no commas, and a search for the next comma skips them quickly.
    """
    left = MOST_COMMAS
    for at in range(0, len(body), PIECE):
        piece = body[at : at + PIECE]
        found = piece.find(b",")
        while found >= 0:
            left -= 1
            if left < 0:
                return True
            found = piece.find(b",", found + 1)
    return False


def _value(name: str, raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except UnicodeError:
        raise RequestFault("invalid_json", f"{name} is not in UTF-8; write the whole body in UTF-8.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestFault("invalid_json", f"{name} is not valid JSON: {error}") from None


def _images(members: dict[str, msgspec.Raw]) -> RawStrings | None:
    """The strings of `images`. If it is missing and `image` is a string, that string, because an existing client sends it so."""
    images = members.get("images")
    if images is None or bytes(memoryview(images)[:4]) == b"null":
        single = members.get("image")
        is_string = single is not None and bytes(memoryview(single)[:1]) == b'"'
        return RawStrings([single]) if single is not None and is_string else None
    try:
        return RawStrings(_ARRAY.decode(images))
    except (msgspec.DecodeError, RecursionError):
        is_text = bytes(memoryview(images)[:1]) == b'"'
        hint = ' It is one string: put it in brackets, as in "images": ["…"].' if is_text else ""
        raise RequestFault("invalid_images", f"images must be an array of 1 to 3000 strings.{hint}") from None
