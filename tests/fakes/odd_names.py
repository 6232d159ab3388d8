"""Runs a command of the service with names that are looked up here, because no test may ask a name server.

    python -m tests.fakes.odd_names serve|web|worker|supervisor ...

Names under `silent.example` are of a name server that never answers: a lookup fails after SILENT_SECONDS, as the system's resolver
does with the service's own time limits. Names under `here.example` are this machine.
"""

from __future__ import annotations

import socket
import sys
import threading
from typing import Any

SILENT_SECONDS = 4.0  #: two questions of 2 s: see pipeline/outbound/guard.py

_system = socket.getaddrinfo
_never = threading.Event()


def _look_up(host: Any, *rest: Any, **options: Any) -> Any:
    name = host.decode("ascii") if isinstance(host, bytes) else host
    if str(name).endswith(".silent.example"):
        _never.wait(SILENT_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _system("127.0.0.1" if str(name).endswith(".here.example") else host, *rest, **options)


def main() -> None:
    from cli import main as cli
    from cli import serve

    socket.getaddrinfo = _look_up  # type: ignore[assignment]
    serve.COMMAND = (sys.executable, "-m", "tests.fakes.odd_names")  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
