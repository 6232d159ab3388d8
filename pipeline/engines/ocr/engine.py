"""The embedded engine: reads text and barcodes offline, in one process for the whole machine (ocr_server)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from pipeline.engines.ocr.reading_order import Quad, TextLine, page_text
from pipeline.engines.ocr.wire import OcrReply, OcrRequest, receive, send
from pipeline.notes import NoteCode, note
from pipeline.ports import EngineLimits, ModelFault, ModelUnavailable
from pipeline.types import MB, Answer, Call, Finish, Form, ItemCode, Picture

MODEL = "rapidocr-ppocrv6"
WARNING = (
    "The ocr engine reads text and barcodes only: it does not follow the prompt. "
    "Set GEMINI_API_KEY (and restart) to have Gemini answer it."
)

_DOUBTFUL = note(
    NoteCode.SCRIPT_NOT_READ, "much of the text is unclear, or of a script that the OCR has no letters for (Cyrillic, Greek, ...)"
)

#: Paths of Unix sockets end here: 108 bytes on Linux, 104 on macOS and the BSDs, with the final zero.
_LONGEST_SOCKET_PATH = 103
_SOCKET, _LOCK, _LOG = "ocr.sock", "ocr.lock", "ocr.log"
#: A cold start takes 2 s; a busy machine with a cold disk takes many times that.
_START_SECONDS = 120.0
#: Deaths of the server that are nobody's fault (it was idle, or another picture killed it) before asking is put off.
_MOST_DEATHS = 8
#: All the server may see of the environment: it parses what strangers send, so no key is in its reach.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_ROOT = Path(__file__).resolve().parents[3]


class OcrEngine:
    """Reads the text and barcodes of one picture a call; the prompt is not followed.

    The first engine of the machine to ask starts the server; engines of all processes that name the same directory share
    it. It ends `grace` seconds after the last engine is closed or killed, and after `idle` seconds without a call.
    """

    name = "ocr"
    model = MODEL
    limits = EngineLimits(pictures=1, raw_bytes=64 * MB, without_pictures=False)
    warnings = (WARNING,)

    def __init__(self, directory: Path, *, grace: float = 5.0, idle: float = 600.0) -> None:
        """`directory` is made if missing, and must be this user's alone (mode 0700): raises PermissionError otherwise."""
        self._directory = _private(_socket_directory(directory))
        self._grace = grace
        self._idle = idle
        self._lock = threading.Lock()
        self._free: list[socket.socket] = []
        self._pid = os.getpid()
        self._closed = False

    def ask(self, call: Call) -> Answer:
        """The picture's text in the call's form. `call.timeout` begins when the server is up.

        TEXT: lines in reading order, barcodes after them. JSON: an array of one object. RECORDS: an array of one record.
        Raises ValueError for other than one picture, ModelUnavailable if the server cannot be started or other pictures
        took all the time, ModelFault if this picture took too long, failed, or killed the server twice.
        """
        if len(call.pictures) != 1:
            raise ValueError(f"The ocr engine takes 1 picture a call, not {len(call.pictures)}.")
        picture = call.pictures[0]
        said = self._read(picture, call.timeout)
        if said.kind == "fault":
            raise ModelFault(f"The OCR engine failed: {said.detail}")
        if said.kind == "unreadable":
            return Answer(finish=Finish.UNREADABLE, code=ItemCode.IMAGE_CORRUPT, detail=said.detail)
        notes = {picture.number: _DOUBTFUL} if said.doubtful else {}
        text = _answer(call, picture, said)
        return Answer(finish=Finish.COMPLETE, text=text, model_version=said.model_version, notes=notes)

    def server_pid(self) -> int:
        """The process id of the machine's OCR server, which is started if need be. Raises ModelUnavailable."""
        connection = self._connect()
        try:
            said = _status(connection)
        except OSError as error:
            connection.close()
            raise ModelUnavailable("The OCR server ended.", retry_after=1.0) from error
        self._put_back(connection)
        return said.pid

    def close(self) -> None:
        """Hangs up. The server ends once every engine has. A call that is under way ends first."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _read(self, picture: Picture, timeout: float) -> OcrReply:
        deadline = 0.0
        deaths = 0
        for _ in range(_MOST_DEATHS):
            connection = self._take()
            deadline = deadline or time.monotonic() + timeout
            started = False
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                send(connection, OcrRequest(kind="read", seconds=timeout), picture.data)
                said, _body = receive(connection, OcrReply, deadline=deadline)
                if said.kind == "started":
                    started = True
                    said, _body = receive(connection, OcrReply, deadline=deadline)
            except TimeoutError as error:
                connection.close()
                if started:
                    raise ModelFault(f"The OCR engine did not read the picture in {timeout:.0f} s.") from error
                raise ModelUnavailable("The OCR engine is busy with other pictures.", retry_after=5.0) from error
            except (EOFError, OSError) as error:
                connection.close()
                deaths += started
                if deaths == 2:
                    raise ModelFault("The OCR engine died twice while it read the picture.") from error
            else:
                self._put_back(connection)
                return said
        raise ModelUnavailable("The OCR engine keeps dying.", retry_after=30.0)

    def _take(self) -> socket.socket:
        """A connection nobody uses. One a call, so that calls of many threads wait in the server's one queue."""
        with self._lock:
            if self._closed:
                raise ModelUnavailable("The OCR engine is closed.", retry_after=1.0)
            if self._pid != os.getpid():
                # After a fork the connections are the parent's: two speakers on one line garble each other.
                for connection in self._free:
                    connection.close()
                self._free, self._pid = [], os.getpid()
            if self._free:
                return self._free.pop()
        return self._connect()

    def _put_back(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                connection.settimeout(None)
                self._free.append(connection)
                return
        connection.close()

    def _connect(self) -> socket.socket:
        """A fresh connection to the server, which is started if there is none."""
        deadline = time.monotonic() + _START_SECONDS
        starts = 0
        process: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            connection = self._dial(deadline)
            if connection:
                return connection
            if process is None or process.poll() is not None:
                if starts == 2:
                    break
                process = self._start()
                starts += process is not None
            time.sleep(0.02)
        raise ModelUnavailable(f"The OCR engine does not start: {self._last_words()}", retry_after=60.0)

    def _dial(self, deadline: float) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._directory / _SOCKET))
            # A server that is about to end may take the connection and never answer: only an answer shows that it serves.
            _status(connection, deadline)
        except OSError:
            connection.close()
            return None
        return connection

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Starts the server; None if one lives, or another engine is starting one.

        The lock is made here and inherited by the server, which holds it for life: so there is never a second one, and
        however the first one dies, it is free again.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = os.open(self._directory / _LOCK, flags, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            log = os.open(self._directory / _LOG, flags | os.O_TRUNC, 0o600)
            try:
                path = str(self._directory / _SOCKET)
                process = subprocess.Popen(
                    [sys.executable, "-m", "pipeline.engines.ocr.server", path, str(self._grace), str(self._idle)],
                    cwd=_ROOT,
                    env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    # A Ctrl-C is for the service: the server ends when the service has hung up.
                    start_new_session=True,
                )
            finally:
                os.close(log)
        finally:
            os.close(lock)
        # The server may end before this process does: somebody must take note, or it stays as a zombie.
        threading.Thread(target=process.wait, name="ocr-server", daemon=True).start()
        return process

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._directory / _LOG).read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:300]
        return "it gave no reason."


def _status(connection: socket.socket, deadline: float | None = None) -> OcrReply:
    """Raises OSError (TimeoutError too) if the server doesn't answer."""
    try:
        send(connection, OcrRequest(kind="status"))
        said, _ = receive(connection, OcrReply, deadline=deadline)
    except EOFError as error:
        raise ConnectionError(str(error)) from error
    connection.settimeout(None)
    return said


def _socket_directory(directory: Path) -> Path:
    """`directory`, or one of the same user under the system's temporary directory if its path is too long for a socket."""
    directory = directory.absolute()
    if len(os.fsencode(directory / _SOCKET)) <= _LONGEST_SOCKET_PATH:
        return directory
    digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"extract-image-{os.geteuid()}-{digest}"


def _private(directory: Path) -> Path:
    """Makes the directory if missing. Raises PermissionError if anyone but this user may enter it.

    Whoever can enter can serve the socket, so read every picture and answer what they like.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} must be a directory of this user alone (mode 0700).")
    return directory


def _answer(call: Call, picture: Picture, said: OcrReply) -> str:
    """What was read, as the text of an answer in the form the call asks for."""
    page = page_text([TextLine(text=line.text, box=_quad(line.box)) for line in said.lines])
    found: dict[str, Any] = {"text": page, "lines": said.lines, "barcodes": said.barcodes}
    codes = "\n".join(f"[{code.format}] {code.text}" for code in said.barcodes)
    text = "\n\n".join(part for part in (page, codes) if part)
    if call.form is Form.TEXT:
        return text
    if call.form is Form.JSON:
        return msgspec.json.encode([{"image": picture.number, **found}]).decode()
    return msgspec.json.encode([{"index": picture.number, "result": found if call.json_mode else text}]).decode()


def _quad(box: list[list[int]]) -> Quad:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = box
    return ((ax, ay), (bx, by), (cx, cy), (dx, dy))
