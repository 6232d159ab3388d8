"""What a decoder child and its parent tell each other, and the limits both hold to.

The child's standard input is a socket. On it come, with one byte each time, the two ends of pipes that a decoder, a fork of the
child, is to read from and write to; it takes the place of the one before, which is killed. When the socket ends, all ends.

On the first pipe, for each picture:

    REQUEST, the bytes

(the format's name with AS_JPEG before it asks for a JPEG) and on the second first of all READY, then for each request, in
their order:

    REPLY, the notes (ASCII), a PNG or JPEG or (where refused) one sentence

Requests may be written ahead of their replies: a decoder that finds the next one waiting need not be woken for it, nor its
parent for each reply. Standard library only, and little of it: each child imports this as it starts.
"""

from __future__ import annotations

import struct
from enum import IntEnum

MAX_PIXELS = 50_000_000  # 8165 x 6123: above what scanners and phones send; 200 MB as RGBA
MAX_SIDE = 30_000  # pixels
MAX_SCANS = 100  # of a JPEG: encoders write about 10
MAX_JPEG = 14_000_000  # bytes: what a model call may have
MAX_NOTE = 500  # bytes

READY = b"\x06decode3"
AS_JPEG = ">"
#: The format's name, padded with zeros; whether another request follows at once; the length of the bytes that follow.
REQUEST = struct.Struct("!16s?I")
#: Outcome; an ItemCode where refused; width, height; bytes resident; length of the note; length of what follows it.
REPLY = struct.Struct("!B32sIIQHI")


class DecodeStatus(IntEnum):
    AS_RECEIVED = 1  #: nothing follows but the notes
    CONVERTED = 2  #: a PNG or JPEG follows
    REFUSED = 3  #: a sentence follows
