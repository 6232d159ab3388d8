"""The protocol between a decoder child and its parent, and the limits that both keep.

The child's standard input is a socket. Over it the parent sends one byte with two pipe ends. The child kills its decoder, if it
has one, and forks a new decoder that reads from the first pipe and writes to the second. When the parent closes the socket, the
decoder and the child end.

The parent writes to the first pipe, for each picture:

    REQUEST, the picture's bytes

AS_JPEG before the format's name asks for a JPEG, and `as_preview` for a small one. The decoder writes READY to the second pipe once, and then, for each request
in order:

    REPLY, the notes (ASCII), the body

The body is a PNG or JPEG, or one sentence if the picture is refused. The parent may write several requests before it reads a
reply, because then neither process sleeps and wakes for every picture. This module imports little, and only from the standard
library, because each child imports it at start.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum

MAX_PIXELS = 50_000_000  # for example 8165 x 6123: more than scanners and phones send; 200 MB as RGBA
MAX_SIDE = 30_000  # pixels
MAX_SCANS = 100  # in one JPEG; encoders write about 10
MAX_JPEG = 14_000_000  # bytes: the most that a model call may have
MAX_NOTE = 500  # bytes

READY = b"\x06decode4"
AS_JPEG = ">"
_PREVIEW = re.compile(r"=([0-9]{1,5}):")  # before the format's name
#: The format's name, padded with zeros; whether another request follows at once; the length of the picture in bytes.
REQUEST = struct.Struct("!24s?I")
#: DecodeStatus; the ItemCode of a refusal; width, height; resident memory in bytes; length of the notes; length of the body.
REPLY = struct.Struct("!B32sIIQHI")


def as_preview(kind: str, width: int) -> str:
    """Asks for a JPEG of at most this width in pixels, whose reply has the width and height of the upright original."""
    return f"={width}:{kind}"


def preview_width(kind: str) -> tuple[int | None, str]:
    """The width that is asked for, None if no preview is asked for; and the rest of `kind`."""
    match = _PREVIEW.match(kind)
    return (int(match[1]), kind[match.end() :]) if match else (None, kind)


def format_of(kind: str) -> str:
    """The format's name in the kind of a request."""
    return preview_width(kind)[1].removeprefix(AS_JPEG)


class DecodeStatus(IntEnum):
    AS_RECEIVED = 1  #: the body is empty: the picture goes to the model as received
    CONVERTED = 2  #: the body is a PNG or JPEG
    REFUSED = 3  #: the body is a sentence
