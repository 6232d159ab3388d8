"""Reads a multipart/form-data body. Its files are the images, and its other fields are those of the JSON body.

The files are written to one temporary file as they come, so that none is held in memory. werkzeug's decoder gets the body
piece by piece.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, overload

import msgspec
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from api.body import BodyRoom, Sent, expected_length, pieces
from pipeline.errors import os_errors
from pipeline.request.check import RequestFault
from pipeline.request.fields import FIELDS
from pipeline.request.file_names import file_name
from pipeline.types import MAX_IMAGES, MB

PIECE = 1 << 16  #: bytes read at a time
MOST_HEADERS = 1 << 16  #: bytes, for one part
MOST_FIELDS = 100  #: parts in addition to one for each image and one for each custom id
MOST_FIELD_BYTES = 2 * MB  #: for all fields together
LONGEST_BOUNDARY = 200
IMAGES = ("images", "images[]", "image")  #: the allowed names of parts with files
_QUOTED_NAME = re.compile(r';\s*filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


class Files(Sequence[bytes]):
    """Images in one file. Each is read only when it is used."""

    def __init__(self, file: IO[bytes], spans: list[tuple[int, int]]) -> None:
        self._file = file
        self._spans = spans  # offset and size of each, in bytes

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return Files(self._file, self._spans[index])
        begin, size = self._spans[index]
        return os.pread(self._file.fileno(), size, begin)


def is_upload(request: Request) -> bool:
    return request.mimetype == "multipart/form-data"


@contextmanager
def read_upload(request: Request, max_body: int, room: BodyRoom, *, hashed: bool) -> Iterator[Sent]:
    """Reads the form of a request. Raises RequestFault, and ApiError as `read_body` does."""
    length = expected_length(request, max_body)
    boundary = request.mimetype_params.get("boundary", "")
    if not 1 <= len(boundary) <= LONGEST_BOUNDARY:
        raise RequestFault("invalid_multipart", "multipart/form-data needs a boundary in its Content-Type.")
    decoder = MultipartDecoder(
        boundary.encode(), max_form_memory_size=MOST_HEADERS + PIECE, max_parts=2 * MAX_IMAGES + MOST_FIELDS
    )
    with (
        room.for_arriving(request.environ, length),
        os_errors(),
        tempfile.TemporaryFile() as file,
        ExitStack() as storing,
    ):
        form = _Form(file)
        for piece in pieces(request.stream, length, PIECE):
            _feed(decoder, piece, form)
        _feed(decoder, None, form)
        file.flush()
        storing.enter_context(room.for_parsing(length))
        yield Sent(
            fields=_fields(form.texts),
            unknown=form.unknown,
            images=Files(file, form.spans),
            uploaded=True,
            names=form.names,
            body_hash=form.hash.hexdigest() if hashed else "",
        )


@dataclass
class _Form:
    """The parts that have been read so far."""

    file: IO[bytes]
    spans: list[tuple[int, int]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # of the files, as they are shown
    texts: dict[str, list[bytes]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)  # the names of fields that are ignored
    #: Hash of the parts' names, the files' names and the contents. The boundary is left out, because it differs each time.
    hash: Any = field(default_factory=hashlib.sha256)
    _name: str = ""
    _is_file: bool = False
    _file_name: str | None = None
    _nameless: bool = False  # a page's file input that was left empty sends such a part
    _part: Any = field(default_factory=hashlib.sha256)
    _begin: int = 0
    _end: int = 0
    _text: bytes = b""
    _text_bytes: int = 0

    def take(self, event: Event) -> None:
        if isinstance(event, Field | File):
            self._begin_part(event)
        elif isinstance(event, Data):
            self._add(event.data)
            if not event.more_data:
                self._end_part()

    def _begin_part(self, event: Field | File) -> None:
        self._name = event.name or ""
        self._is_file = isinstance(event, File)
        self._nameless = isinstance(event, File) and not event.filename
        self._file_name = file_name(_name_of(event)) if isinstance(event, File) else None
        if self._is_file and self._name not in IMAGES:
            named = repr(self._name[:40])
            text = f'Files go in parts named images, and this one is named {named}. With curl: -F "images=@receipt.jpg".'
            raise RequestFault("invalid_multipart", text)
        if not self._is_file and self._name in IMAGES:
            text = (
                "In multipart/form-data images are files: each needs a filename. With curl, put @ before the path: "
                '-F "images=@receipt.jpg". Send URLs in a JSON body instead.'
            )
            raise RequestFault("invalid_multipart", text)
        if not self._is_file and self._name not in FIELDS and self._name not in self.unknown:
            self.unknown.append(self._name)
        self._part = hashlib.sha256()
        self._begin, self._text = self._end, b""

    def _add(self, data: bytes) -> None:
        self._part.update(data)
        if self._is_file:
            self._end += self.file.write(data)
            return
        self._text_bytes += len(data)
        if self._text_bytes > MOST_FIELD_BYTES:
            raise RequestFault("invalid_multipart", f"The fields beside the images have over {MOST_FIELD_BYTES} bytes.")
        if self._name in FIELDS:
            self._text += data

    def _end_part(self) -> None:
        if self._nameless and self._end == self._begin:
            return
        if self._is_file:
            self.spans.append((self._begin, self._end - self._begin))
            self.names.append(self._file_name)
        elif self._name in FIELDS:
            self.texts.setdefault(self._name, []).append(self._text)
        name = "images" if self._is_file else self._name
        for text in (name, self._file_name or ""):  # two digests of fixed length, so that no name can pass for a content
            self.hash.update(hashlib.sha256(text.encode()).digest())
        self.hash.update(self._part.digest())


def _name_of(part: File) -> str:
    """The file's name as it was sent. werkzeug takes each backslash for an escape, and browsers send Windows paths unescaped."""
    disposition = part.headers.get("Content-Disposition", "")
    quoted = _QUOTED_NAME.search(disposition)
    if not quoted or "filename*" in disposition.lower():
        return part.filename or ""
    return quoted[1].replace('\\"', '"').replace("%22", '"')


def _feed(decoder: MultipartDecoder, piece: bytes | None, form: _Form) -> None:
    """Passes the piece to the decoder and takes the events that it completes. None ends the body."""
    try:
        decoder.receive_data(piece)
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            form.take(event)
    except RequestEntityTooLarge:
        text = f"The form has over {2 * MAX_IMAGES + MOST_FIELDS} parts, or a part with over {MOST_HEADERS} bytes of headers."
        raise RequestFault("invalid_multipart", text) from None
    except ValueError as error:  # also raised for text that is not UTF-8
        raise RequestFault("invalid_multipart", f"The body is not valid multipart/form-data: {error}.") from None


def _fields(texts: dict[str, list[bytes]]) -> dict[str, Any]:
    """The fields as in a JSON body. A field that comes several times is an array. An empty field is left out."""
    values = {name: [_value(name, text) for text in found if text] for name, found in texts.items()}
    fields: dict[str, Any] = {name: found if len(found) > 1 else found[0] for name, found in values.items() if found}
    for name, value in fields.items():
        if FIELDS[name].form == "texts" and not (len(values[name]) == 1 and isinstance(value, list | None)):
            # Each part is one text and is taken as it is. A number stays text here.
            fields[name] = [_text(name, text) for text in texts[name] if text]
    return fields


def _value(name: str, text: bytes) -> Any:
    """The value of a part: its JSON value if it is JSON and the field is not always text, else the text itself."""
    if FIELDS[name].form != "text":
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    return _text(name, text)


def _text(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise RequestFault("invalid_multipart", f"{name} is no text in UTF-8.") from None
