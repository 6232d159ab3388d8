"""The embedded Redis: a Valkey server on a Unix socket. Its process ends when the process that started it ends."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from redis.exceptions import RedisError

from storage.redis import embedded_server
from storage.redis.embedded_server import START_SECONDS
from storage.redis.signals import connect

SOCKET = "redis.sock"
LONGEST_SOCKET_PATH = 100  #: bytes; Linux allows 108, macOS 104
#: The server's process gets only these environment variables, so it does not get keys and addresses of other services.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  #: characters that need no escape in a URL or in the server's configuration


class RunningRedis(NamedTuple):
    """A process that runs the server until the pipe on its standard input closes."""

    command: list[str]
    environment: dict[str, str]
    pid: int
    started: float  #: by time.monotonic()
    pipe: int  #: the descriptor of the pipe's other end


class EmbeddedRedis:
    """A running server. It does not persist its data, because the queue is in SQL and Redis only notifies."""

    def __init__(self, directory: Path) -> None:
        self._directory = _place(directory)
        self._socket = self._directory / SOCKET
        self.url = f"unix://{self._socket}"
        self._start()
        self._wait()

    def _start(self) -> None:
        self._started = time.monotonic()
        # -P keeps the working directory out of the import path, because it may contain modules with the same names.
        self._command = [sys.executable, "-P", embedded_server.__file__, str(self._socket), str(self._directory)]
        self._environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # The server gets its own session, so that Ctrl-C in a terminal does not end it before the processes that use it.
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True, env=self._environment)

    def hand_over(self) -> RunningRedis:
        """Leaves the process to the caller, who restarts it and ends it. `close` does nothing from now on."""
        assert self._process.stdin
        pipe = os.dup(self._process.stdin.fileno())
        self._process.stdin.close()
        self._process.returncode = 0  # the caller waits for it
        return RunningRedis(self._command, self._environment, self._process.pid, self._started, pipe)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with connect(self.url) as client:
            while True:
                try:
                    client.ping()
                except RedisError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.close()
                        log = self._directory / "valkey.log"
                        raise RuntimeError(f"The embedded Redis did not start; its log is {log}.") from None
                    time.sleep(0.02)
                else:
                    return

    def close(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _place(directory: Path) -> Path:
    """The folder for the socket: `directory`, or a folder of this user in the system's temporary folder.

    It uses the second one if the path of `directory` is too long for a socket or has unusual characters. Raises PermissionError
    if that folder belongs to another user, because that user could listen on the socket instead.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    path = os.fsencode(directory / SOCKET)
    if len(path) <= LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(str(directory)):
        return directory
    name = hashlib.sha256(path).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"extract-image-redis-{os.getuid()}-{name}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{place} must be a folder of this user alone (mode 0700).")
    return place
