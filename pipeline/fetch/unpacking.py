"""Unpacks bodies that have a Content-Encoding. Their first bytes decide, because servers often send that header with plain bodies."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_GZIP = b"\x1f\x8b\x08"
_AT_ONCE = 64 * 1024  # the most bytes that are unpacked in one step, so that the caller can stop a decompression bomb
# A body with one of these encodings is refused if it starts neither as gzip nor as an image. Other values say nothing about the
# bytes: object stores send "aws-chunked" back, and people set "utf-8" or "none" by mistake.
_PACKED = (b"br", b"zstd", b"deflate", b"compress", b"gzip", b"dcb", b"dcz")
# The first bytes of images that some servers label with one of these encodings although they send the image unpacked.
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
    """Unpacks one body. `encoding`: the body's Content-Encoding, in lower case."""

    def __init__(self, encoding: bytes) -> None:
        self._names = {name.strip().removeprefix(b"x-") for name in encoding.split(b",")}
        self._start = b""  # the first bytes, kept until there are enough of them to judge the body
        self._judged = False
        self._gzip: zlib._Decompress | None = zlib.decompressobj(wbits=31)  # None: the body is not gzip

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yields the unpacked parts of a piece of the body. Raises ValueError, whose text is a sentence for the caller."""
        if not self._judged:
            self._start += piece
            if len(self._start) < 12:
                return
            piece = self._judge()
        yield from self._unpack(piece)

    def end(self) -> Iterator[bytes]:
        """Yields the remaining parts once the body has ended. Raises ValueError, whose text is a sentence for the caller."""
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
            if self._gzip.eof and self._gzip.unused_data.startswith(_GZIP):  # a gzip file may have several members
                piece = self._gzip.unused_data
                self._gzip = zlib.decompressobj(wbits=31)
