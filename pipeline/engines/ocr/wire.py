"""The messages between the OCR engine and its server. This module imports no OCR library."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

#: The length of the JSON head, then the length of the raw bytes that follow it.
_LENGTHS = struct.Struct("!II")
#: A head holds at most the lines of one picture; a body at most one picture (raw_bytes of the engine's limits).
MAX_HEAD = 64 * 1024 * 1024
MAX_BODY = 256 * 1024 * 1024

#: Corners as the text sees them: top left, top right, bottom right, bottom left; x, y in pixels of the upright picture.
Box = list[list[int]]
Message = TypeVar("Message")


@dataclass(frozen=True, kw_only=True, slots=True)
class OcrLine:
    """One line of text."""

    text: str
    box: Box
    confidence: float  #: 0 to 1, three places


@dataclass(frozen=True, kw_only=True, slots=True)
class Barcode:
    """One barcode."""

    format: str  #: "QRCode", "EAN13", ...
    text: str
    box: Box


@dataclass(frozen=True, kw_only=True, slots=True)
class OcrRequest:
    """A message from the engine. The body of a `read` is the picture's encoded bytes."""

    kind: Literal["status", "read"]
    seconds: float = 0.0  #: how long the engine waits for the reply to a `read`


@dataclass(frozen=True, kw_only=True, slots=True)
class OcrReply:
    """A message from the server.

    The server answers a `read` with `started` when it begins to read the picture, and then with one of the last three kinds.
    """

    kind: Literal["status", "started", "reading", "unreadable", "fault"]
    pid: int = 0  #: with status
    model_version: str = ""  #: with status and reading
    lines: tuple[OcrLine, ...] = ()  #: with reading, in no order
    barcodes: tuple[Barcode, ...] = ()  #: with reading
    #: With reading: for each line, where the middle of each of its characters is, in thousandths of the line's length. A line
    #: whose places are not known has none.
    places: tuple[tuple[int, ...], ...] = ()
    size: tuple[int, int] = (0, 0)  #: with reading: width and height of the upright picture in pixels
    doubtful: bool = False  #: with reading: much of the text is unclear, or of a script that the models have no letters for
    detail: str = ""  #: with unreadable and fault


#: Made at import, because msgspec crashes the process if two threads make the first decoder of a type at the same time.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in (OcrRequest, OcrReply)}


def send(connection: socket.socket, head: OcrRequest | OcrReply, body: bytes = b"") -> None:
    """Sends one message. Raises OSError if the other side is gone."""
    packed = msgspec.json.encode(head)
    connection.sendall(_LENGTHS.pack(len(packed), len(body)) + packed)
    if body:
        connection.sendall(body)


def receive(connection: socket.socket, kind: type[Message], *, deadline: float | None = None) -> tuple[Message, bytes]:
    """Waits for one message.

    Raises TimeoutError if it has not arrived by `deadline` (of time.monotonic()), EOFError if the other side is gone or sends
    something that is not a message, and OSError if the connection fails.
    """
    head_size, body_size = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size, deadline))
    if head_size > MAX_HEAD or body_size > MAX_BODY:
        raise EOFError("a message is too long")
    packed = _exactly(connection, head_size, deadline)
    body = _exactly(connection, body_size, deadline)
    try:
        return _DECODERS[kind].decode(packed), bytes(body)
    except msgspec.MsgspecError as error:
        raise EOFError(f"not a message: {error}") from error


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the other side did not answer in time")
            connection.settimeout(left)
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the connection was closed")
        view = view[got:]
    return data
