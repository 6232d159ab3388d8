"""Gemini's Files API: resumable uploads, and the stored files until they are deleted."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from threading import Lock
from typing import Any

from .gemini_contract import read_json
from .gemini_errors import ApiError, bad_request

NAME = re.compile(r"files/[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
SIZE_LIMIT = 2 * 1024**3  # bytes of a file, from Google's page on the Files API
GRANULARITY = 256 * 1024  # bytes; each chunk except the last must be a multiple of this
LIFETIME = timedelta(hours=48)
#: Google's page says that `mimeType` and `sizeBytes` are for output only, but the SDK sends them.
START = {"file": {"name": str, "displayName": str, "mimeType": str, "sizeBytes": int}}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A completely uploaded file. `name` is `files/<id>`."""

    name: str
    mime: str
    data: bytes
    display_name: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(kw_only=True, slots=True)
class Upload:
    """An upload that has not ended."""

    name: str
    mime: str
    size: int
    display_name: str
    data: bytearray = field(default_factory=bytearray)


class FileStore:
    """The files of one project. `kept` has the names of the uploaded files that are not deleted."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.uploaded: list[str] = []  #: the names of all completed uploads, in order
        self.deleted: list[str] = []
        self._files: dict[str, StoredFile] = {}
        self._uploads: dict[str, Upload] = {}
        self._lock = Lock()

    @property
    def kept(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._files)

    def start(self, headers: Message, raw: bytes) -> str:
        """Starts an upload. Returns the URL for its bytes."""
        if headers.get("X-Goog-Upload-Protocol") != "resumable" or headers.get("X-Goog-Upload-Command") != "start":
            raise bad_request("An upload starts with X-Goog-Upload-Protocol: resumable and X-Goog-Upload-Command: start.")
        length = headers.get("X-Goog-Upload-Header-Content-Length", "")
        mime = headers.get("X-Goog-Upload-Header-Content-Type", "")
        if not re.fullmatch(r"\d{1,12}", length) or not 0 < int(length) <= SIZE_LIMIT or "/" not in mime:
            raise bad_request(f"An upload names a size up to {SIZE_LIMIT} bytes and a type, not {length!r} and {mime!r}.")
        asked = read_json(raw or b"{}", START).get("file", {})
        name = asked.get("name") or f"files/{secrets.token_hex(6)}"
        if not NAME.fullmatch(name):
            raise bad_request(f"Invalid file name {name!r}.", field="file.name")
        with self._lock:
            if name in self._files:
                raise ApiError(409, f"Requested entity already exists: {name}")
            token = secrets.token_urlsafe(16)
            self._uploads[token] = Upload(name=name, mime=mime, size=int(length), display_name=asked.get("displayName", ""))
        return f"{self.base_url}/upload/v1beta/files?upload_id={token}&upload_protocol=resumable"

    def add(self, token: str, headers: Message, chunk: bytes) -> dict[str, Any] | None:
        """Adds a chunk to an upload. Returns the File once the upload is finalized, None before."""
        commands = {word.strip() for word in headers.get("X-Goog-Upload-Command", "").split(",")}
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None:
                raise ApiError(404, "Upload not found.")
            if not commands or not commands <= {"upload", "finalize"}:
                raise bad_request(f"Unknown upload command {sorted(commands)}.")
            if headers.get("X-Goog-Upload-Offset") != str(len(upload.data)):
                raise bad_request(f"The next byte is {len(upload.data)}, not {headers.get('X-Goog-Upload-Offset')}.")
            if "finalize" not in commands and len(chunk) % GRANULARITY:
                raise bad_request(f"A chunk that is not the last is a multiple of {GRANULARITY} bytes.")
            upload.data += chunk
            if "finalize" not in commands:
                return None
            if len(upload.data) != upload.size:
                raise bad_request(f"{upload.size} bytes were announced, {len(upload.data)} came.")
            del self._uploads[token]
            file = StoredFile(name=upload.name, mime=upload.mime, data=bytes(upload.data), display_name=upload.display_name)
            self._files[file.name] = file
            self.uploaded.append(file.name)
        return {"file": self._shown(file)}

    def get(self, name: str) -> dict[str, Any]:
        with self._lock:
            return self._shown(self._found(name))

    def delete(self, name: str) -> dict[str, Any]:
        with self._lock:
            del self._files[self._found(name).name]
            self.deleted.append(name)
        return {}

    def list(self) -> dict[str, Any]:
        """Lists all files on one page."""
        with self._lock:
            return {"files": [self._shown(file) for file in self._files.values()]}

    def behind(self, uri: str) -> StoredFile:
        """The file of a part's fileUri. If it is missing, raises the ApiError that generateContent gives."""
        name = uri.removeprefix(f"{self.base_url}/v1beta/")
        with self._lock:
            if name not in self._files:
                raise ApiError(403, f"You do not have permission to access the File {name} or it may not exist.")
            return self._files[name]

    def _found(self, name: str) -> StoredFile:
        if name not in self._files:
            raise ApiError(404, f"File {name} not found.")
        return self._files[name]

    def _shown(self, file: StoredFile) -> dict[str, Any]:
        shown = {
            "name": file.name,
            "mimeType": file.mime,
            "sizeBytes": str(len(file.data)),
            "createTime": file.created.isoformat(),
            "updateTime": file.created.isoformat(),
            "expirationTime": (file.created + LIFETIME).isoformat(),
            "sha256Hash": base64.b64encode(hashlib.sha256(file.data).hexdigest().encode()).decode(),
            "uri": f"{self.base_url}/v1beta/{file.name}",
            "state": "ACTIVE",
            "source": "UPLOADED",
        }
        return shown | ({"displayName": file.display_name} if file.display_name else {})
