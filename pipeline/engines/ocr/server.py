"""The OCR server: one process for a machine, which reads pictures for all engines that are connected to it.

pipeline.engines.ocr.start starts it in a sandbox. The server ends when no engine has been connected for GRACE seconds, or when there
was no request for IDLE seconds. A killed service leaves no server behind, because the kernel closes the connections of a process that
dies.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.engines.ocr.reader import HungUp, Reader
from pipeline.engines.ocr.wire import OcrReply, OcrRequest, receive, send

#: A picture that takes longer than this, and longer than its caller waits, is stuck. Then the process ends, because only a new
#: one helps.
_STUCK_SECONDS = 120.0


@dataclass(kw_only=True, slots=True)
class _Callers:
    """Counts connections and running requests, to know when the server should end. Times are of time.monotonic()."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    connected: int = 0
    asking: int = 0
    alone_since: float = field(default_factory=time.monotonic)
    quiet_since: float = field(default_factory=time.monotonic)

    def came(self) -> None:
        with self.lock:
            self.connected += 1

    def left(self) -> None:
        with self.lock:
            self.connected -= 1
            self.alone_since = time.monotonic()

    def asks(self, change: int) -> None:
        with self.lock:
            self.asking += change
            self.quiet_since = time.monotonic()

    def over(self, *, grace: float, idle: float) -> bool:
        with self.lock:
            now = time.monotonic()
            if not self.connected:
                return now - self.alone_since >= grace
            return not self.asking and now - self.quiet_since >= idle


def serve(listener: socket.socket, reader: Reader, *, grace: float, idle: float) -> None:
    """Answers on the Unix socket `listener`, which is bound, until it is time to end. Then it closes `listener`.

    Tests pass a reader of their own.
    """
    callers = _Callers()
    # One thread reads pictures, first come first served, because onnxruntime uses every core for one picture.
    with ThreadPoolExecutor(max_workers=1) as turn:
        listener.listen(128)
        listener.settimeout(min(1.0, grace / 4, idle / 4))
        while not callers.over(grace=grace, idle=idle):
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            callers.came()
            threading.Thread(target=_attend, args=(connection, callers, reader, turn), daemon=True).start()
        # Engines that connect from now on find no server. They start another one when this process has released the lock.
        listener.close()


def _attend(connection: socket.socket, callers: _Callers, reader: Reader, turn: ThreadPoolExecutor) -> None:
    """Answers one engine until it closes the connection."""
    with connection:
        try:
            while True:
                request, data = receive(connection, OcrRequest)
                callers.asks(+1)
                try:
                    if request.kind == "status":
                        send(connection, OcrReply(kind="status", pid=os.getpid(), model_version=reader.model_version))
                    else:
                        send(connection, turn.submit(_reading, connection, reader, request, data).result())
                finally:
                    callers.asks(-1)
        except (HungUp, EOFError, OSError):
            pass
        finally:
            callers.left()


def _reading(connection: socket.socket, reader: Reader, request: OcrRequest, data: bytes) -> OcrReply:
    """Reader one picture, in the reading thread."""
    if _hung_up(connection):
        raise HungUp
    send(connection, OcrReply(kind="started"))
    faulthandler.dump_traceback_later(max(_STUCK_SECONDS, request.seconds + 5), exit=True)
    try:
        return reader.read(data, lambda: not _hung_up(connection))
    except HungUp:
        raise
    except Exception as error:  # noqa: BLE001  because one bad picture must not stop the server
        return OcrReply(kind="fault", detail=f"{type(error).__name__}: {error}"[-300:])
    finally:
        faulthandler.cancel_dump_traceback_later()


def _hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
