"""The embedded engine. It reads text and barcodes offline, in one server for the machine (pipeline/engines/ocr/server.py)."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from pipeline.engines.ocr.reading_order import Quad, TextLine, page_text
from pipeline.engines.ocr.wire import OcrReply, OcrRequest, receive, send
from pipeline.errors import Permanent, Transient, os_error
from pipeline.notes import NoteCode, note
from pipeline.ports import EngineConfig, EngineLimits, ModelFault, ModelUnavailable, ProbeFailed, Reencode
from pipeline.types import MB, Answer, Call, Finish, Form, ItemCode, Picture

MODEL = "rapidocr-ppocrv6"
WARNING = (
    "The ocr engine reads text and barcodes only: it does not follow the prompt. "
    "Set GEMINI_API_KEY (and restart) to have Gemini answer it."
)

PACKAGES = ("rapidocr", "onnxruntime", "cv2", "zxingcpp")  #: modules that the server imports

_DOUBTFUL = note(
    NoteCode.SCRIPT_NOT_READ, "much of the text is unclear, or of a script that the OCR has no letters for (Cyrillic, Greek, ...)"
)

#: The longest path of a Unix socket, in bytes: 108 on Linux, 104 on macOS and the BSDs, including the final zero byte.
_LONGEST_SOCKET_PATH = 103
_SOCKET, _LOCK, _LOG = "ocr.sock", "ocr.lock", "ocr.log"
#: A cold start takes 2 s, and many times that on a busy machine with a cold disk.
_START_SECONDS = 120.0
#: How often a call is repeated because the server ended for another reason (it was idle, or another picture killed it).
_MOST_DEATHS = 8
#: The environment variables that the server gets. They hold no keys, because the server parses pictures from strangers.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_SERVER = "pipeline.engines.ocr.start"
_ROOT = Path(__file__).resolve().parents[3]


class OcrEngine:
    """Reads the text and barcodes of one picture a call. It does not follow the prompt.

    The first call starts the server. The engines of all processes that name the same directory share it. The server ends
    `grace` seconds after the last engine is closed or killed, and after `idle` seconds without a call.
    """

    name = "ocr"
    model = MODEL
    limits = EngineLimits(pictures=1, raw_bytes=64 * MB, without_pictures=False)
    warnings = (WARNING,)

    def __init__(self, directory: Path, *, grace: float = 5.0, idle: float = 600.0, server: str = _SERVER) -> None:
        """Creates `directory` if it is missing. Raises PermissionError if other users may enter it (it must have mode 0700).

        `server`: the module that is started as the server.
        """
        self._directory = _private(_socket_directory(directory))
        self._grace = grace
        self._idle = idle
        self._server = server
        self._lock = threading.Lock()
        self._free: list[socket.socket] = []
        self._pid = os.getpid()
        self._closed = False

    def ask(self, call: Call) -> Answer:
        """The picture's text in the call's form. `call.timeout` begins when the server is up.

        TEXT: lines in reading order, barcodes after them. JSON: an array of one object. RECORDS: an array of one record.

        It raises these errors:

        - ValueError if the call does not have exactly one picture;
        - ModelUnavailable if the server can't be started now, or was busy with other pictures all the time;
        - ModelFault if this picture took too long, failed, or killed the server twice;
        - Permanent if the server can never be started on this machine.
        """
        if len(call.pictures) != 1:
            raise ValueError(f"The ocr engine takes 1 picture a call, not {len(call.pictures)}.")
        picture = call.pictures[0]
        said = self.read(picture.data, timeout=call.timeout)
        if said.kind == "unreadable":
            return Answer(finish=Finish.UNREADABLE, code=ItemCode.IMAGE_CORRUPT, detail=_one_line(said.detail))
        notes = {picture.number: _DOUBTFUL} if said.doubtful else {}
        text = _answer(call, picture, said)
        return Answer(finish=Finish.COMPLETE, text=text, model_version=_one_line(said.model_version), notes=notes)

    def read(self, data: bytes, *, timeout: float) -> OcrReply:
        """What the server read in a picture's encoded bytes, of the kind `reading`, or `unreadable` if they are no picture.

        `timeout`: seconds, from when the server is up. Raises ModelUnavailable, ModelFault and Permanent as `ask` does.
        """
        deadline = 0.0
        deaths = 0
        for _ in range(_MOST_DEATHS):
            connection = self._take()
            deadline = deadline or time.monotonic() + timeout
            started = False
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                send(connection, OcrRequest(kind="read", seconds=timeout), data)
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
                if said.kind == "fault":
                    raise ModelFault(f"The OCR engine failed: {_one_line(said.detail)}")
                return said
        raise ModelUnavailable("The OCR engine keeps dying.", retry_after=30.0)

    def server_pid(self) -> int:
        """The process id of the machine's OCR server. Starts the server if there is none. Raises ModelUnavailable."""
        connection = self._connect()
        try:
            said = _status(connection)
        except OSError as error:
            connection.close()
            raise ModelUnavailable("The OCR server ended.", retry_after=1.0) from error
        self._put_back(connection)
        return said.pid

    def most_pictures(self, _model: str) -> int:
        return self.limits.pictures

    def learn_pictures(self, _model: str, _most: int) -> None:
        """Does nothing, because a call has one picture at most."""

    def close(self) -> None:
        """Closes the connections. The server ends when no engine is connected. A running call is finished first."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _take(self) -> socket.socket:
        """A connection for one call. Each call has its own, so that the calls of all threads wait in the server's one queue."""
        with self._lock:
            if self._closed:
                raise ModelUnavailable("The OCR engine is closed.", retry_after=1.0)
            if self._pid != os.getpid():
                # After a fork the connections belong to the parent. The child must not use them, because two processes that
                # write to one socket mix up their messages.
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
        """A new connection to the server. Starts the server if there is none.

        Raises ModelUnavailable if the server does not start, or the machine lacks processes, memory or file descriptors now.
        Raises Permanent if the operating system refuses the start for good.
        """
        try:
            return self._reach()
        except OSError as error:
            text = f"The OCR engine can't be started: {error}"
            if isinstance(found := os_error(error), Transient):
                raise ModelUnavailable(text, retry_after=found.retry_after, notice=found.notice) from error
            raise Permanent(text) from error

    def _reach(self) -> socket.socket:
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
            # Wait for an answer, because a server that is about to end may accept the connection and never answer.
            _status(connection, deadline)
        except OSError:
            connection.close()
            return None
        return connection

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Starts the server. None if a server is running, or another engine is starting one.

        The server inherits the file lock that is taken here, and holds it until it ends. So there is never a second server,
        and the kernel frees the lock however the server dies.
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
                    [sys.executable, "-m", self._server, path, str(self._grace), str(self._idle)],
                    cwd=_ROOT,
                    env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    # A Ctrl-C must reach only the service. The server ends when the service has closed its connections.
                    start_new_session=True,
                )
            finally:
                os.close(log)
        finally:
            os.close(lock)
        # A thread waits for the server, because a child that ends and is not waited for stays as a zombie.
        threading.Thread(target=process.wait, name="ocr-server", daemon=True).start()
        return process

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._directory / _LOG).read_text(errors="replace").strip().splitlines()
            if lines:
                return _one_line(lines[-1])
        return "it gave no reason."


def _one_line(text: str) -> str:
    """The text's printable letters, 300 at most. A hostile picture may have written it, and it goes into logs and answers."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def open_engine(config: EngineConfig, _reencode: Reencode) -> OcrEngine:
    return OcrEngine(config.directory)


def probe(_config: EngineConfig, _timeout: float) -> str:
    """See pipeline.ports.EngineModule. It does not start the server."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ProbeFailed(f"not installed: {', '.join(missing)}", "Run `make install`.")
    return "ocr, installed; it reads text and follows no prompts"


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
    """`directory`. If its path is too long for a socket, a directory of this user in the system's temporary directory."""
    directory = directory.absolute()
    if len(os.fsencode(directory / _SOCKET)) <= _LONGEST_SOCKET_PATH:
        return directory
    digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"extract-image-{os.geteuid()}-{digest}"


def _private(directory: Path) -> Path:
    """Creates the directory if it is missing. Raises PermissionError if another user may enter it.

    Whoever can enter it could put a server of their own on the socket. It would see every picture and could send any answer.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} must be a directory of this user alone (mode 0700).")
    return directory


def _answer(call: Call, picture: Picture, said: OcrReply) -> str:
    """The text of the answer, in the form that the call asks for."""
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
