"""Files that a client sends, and the body in which it sends them. Like `cli/client.py`, it imports nothing else of this project."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE = 1 << 18  #: bytes of a file read at a time


class FileChanged(Exception):
    """A file is gone, or is not as it was when its size or hash was taken. The body was broken off before its end."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} changed while it was sent")
        self.name = name  #: the file's name as in File


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """An image that is sent as a file."""

    name: str  #: what the service shows for it
    source: Path | bytes  #: where its bytes are, or the bytes
    size: int  #: bytes
    sha256: str = ""  #: hex; empty: not checked


class Form:
    """The body multipart/form-data of a request, with a length that is known before it is sent. `pieces` may be called again for another try."""

    def __init__(self, files: Sequence[File], fields: Mapping[str, Any]) -> None:
        """`fields`: texts are sent as they are, all other values as JSON. None values are left out."""
        self._boundary = f"form-{secrets.token_hex(16)}"
        self._files = files
        given = {name: value for name, value in fields.items() if value is not None}
        texts = {name: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for name, text in given.items()}
        self._texts = [(name, text.encode()) for name, text in texts.items()]
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        #: bytes of the whole body
        self.length = (
            sum(len(self._head(name)) + len(text) + 2 for name, text in self._texts)
            + sum(len(self._head("images", file.name)) + file.size + 2 for file in files)
            + len(self._end())
        )

    def pieces(self) -> Iterator[bytes]:
        """The body. Raises FileChanged before the end of the body, so that the service never takes a wrong file."""
        for name, text in self._texts:
            yield self._head(name) + text + b"\r\n"
        for file in self._files:
            yield self._head("images", file.name)
            yield from _content(file)
            yield b"\r\n"
        yield self._end()

    def _head(self, name: str, filename: str | None = None) -> bytes:
        file = f'; filename="{_quoted(filename)}"\r\nContent-Type: application/octet-stream' if filename is not None else ""
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"{file}\r\n\r\n'.encode()

    def _end(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()


def _quoted(text: str) -> str:
    """The text as browsers write it between quotation marks."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _content(file: File) -> Iterator[bytes]:
    if isinstance(file.source, bytes):
        yield file.source
        return
    digest, left = hashlib.sha256(), file.size
    try:
        with file.source.open("rb") as source:
            while piece := source.read(PIECE):
                left -= len(piece)
                if left < 0:
                    break
                digest.update(piece)
                yield piece
    except OSError:
        raise FileChanged(file.name) from None
    if left or (file.sha256 and digest.hexdigest() != file.sha256):
        raise FileChanged(file.name)
