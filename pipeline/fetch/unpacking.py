"""Bodies that came with a Content-Encoding, judged by their own first bytes: servers send that header with much that is not encoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_GZIP = b"\x1f\x8b\x08"
_AT_ONCE = 64 * 1024  # bytes that are unpacked in one go, so that the caller can stop a bomb
# Of these a body is packed for certain, and not by what is unpacked here. "aws-chunked", "utf-8", "none" and the like, which stores
# replay and people set by mistake, say nothing of the bytes.
_PACKED = (b"br", b"zstd", b"deflate", b"compress", b"gzip", b"dcb", b"dcz")
# The first bytes of formats that a server labels so although the image is sent as it is.
_IMAGES = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"RIFF",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cJXL ",
    b"\xff\x0a",
    b"\0\0\0\x0cjP  ",
)


class Unpacker:
    """The bytes of one body. `encoding`: its Content-Encoding, in lower case."""

    def __init__(self, encoding: bytes) -> None:
        self._names = {name.strip().removeprefix(b"x-") for name in encoding.split(b",")}
        self._start = b""  # until there is enough of it to judge
        self._judged = False
        self._gzip: zlib._Decompress | None = zlib.decompressobj(wbits=31)  # None: it is none

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What becomes of a piece of the body, in parts. Raises ValueError, with a sentence for the caller."""
        if not self._judged:
            self._start += piece
            if len(self._start) < 12:
                return
            piece = self._judge()
        yield from self._unpack(piece)

    def end(self) -> Iterator[bytes]:
        """What is left, now that the body has ended. Raises ValueError, with a sentence for the caller."""
        if not self._judged:
            yield from self._unpack(self._judge())
        if self._gzip is not None and not self._gzip.eof:
            raise ValueError("The server sent the image as gzip that ends too soon.")

    def _judge(self) -> bytes:
        start, self._start, self._judged = self._start, b"", True
        if not start.startswith(_GZIP):
            self._gzip = None
            image = start.startswith(_IMAGES) or start[4:8] == b"ftyp"
            if not image and not self._names.isdisjoint(_PACKED):
                raise ValueError("The server sent the image with a Content-Encoding that was not asked for.")
        return start

    def _unpack(self, piece: bytes) -> Iterator[bytes]:
        if self._gzip is None:
            yield piece
            return
        while piece and not self._gzip.eof:
            try:
                part = self._gzip.decompress(piece, _AT_ONCE)
            except zlib.error:
                raise ValueError("The server sent the image as gzip that is damaged.") from None
            if part:
                yield part
            piece = self._gzip.unconsumed_tail
            if self._gzip.eof and self._gzip.unused_data.startswith(_GZIP):  # gzip may have several members
                piece = self._gzip.unused_data
                self._gzip = zlib.decompressobj(wbits=31)
