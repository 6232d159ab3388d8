"""The format of the scratch object that holds all images of a chunk: the bodies, then an index.

Measured with 3000 images of 33 KB on S3: one object for each image takes 2 CPU seconds per 1000 images, packed objects take 0.09.
The index is at the end, so that the writer needs no sizes beforehand and never holds more than one image.

    body | body | … | index (JSON, UTF-8) | length of the index (8 bytes, big endian) | MAGIC
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, Any

MAGIC = b"XIMGPACK"
TAIL = 8 + len(MAGIC)


class PackWriter:
    """Writes bodies to `out`. Call `finish` at the end, because it writes the index."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._offset = 0
        self._entries: dict[str, dict[str, Any]] = {}

    def add(self, index: int, body: bytes | memoryview, **facts: str | int) -> None:
        """Appends image `index`. `facts` (JSON values) are stored with it, and the reader returns them."""
        size = self._out.write(body)
        self._entries[str(index)] = {"offset": self._offset, "size": size, **facts}
        self._offset += size

    def add_again(self, index: int, earlier: int) -> None:
        """Adds image `index`, which equals the image `earlier`, so its body is not stored again."""
        self._entries[str(index)] = self._entries[str(earlier)]

    @property
    def size(self) -> int:
        """Bytes of the bodies stored so far."""
        return self._offset

    def finish(self) -> None:
        index = json.dumps(self._entries).encode()
        self._out.write(index + len(index).to_bytes(8, "big") + MAGIC)
        self._out.flush()


@dataclass(frozen=True, slots=True)
class Entry:
    """The position of one image in the object, and the facts that its writer gave."""

    offset: int
    size: int
    facts: dict[str, Any]


class PackReader:
    """Reads bodies from `source`, a seekable reader that the caller closes. Raises ValueError if it has another format."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        end = source.seek(0, 2)
        if end < TAIL:
            raise ValueError("scratch object is cut short")
        source.seek(end - TAIL)
        tail = source.read(TAIL)
        if tail[8:] != MAGIC:
            raise ValueError("scratch object is no pack")
        length = int.from_bytes(tail[:8], "big")
        source.seek(end - TAIL - length)
        raw: dict[str, dict[str, Any]] = json.loads(source.read(length))
        self.entries = {int(index): Entry(entry.pop("offset"), entry.pop("size"), entry) for index, entry in raw.items()}

    def read(self, index: int) -> bytes:
        """The body of image `index`. Raises KeyError."""
        entry = self.entries[index]
        self._source.seek(entry.offset)
        return self._source.read(entry.size)
