"""Starts the OCR server in a sandbox: `python -m pipeline.engines.ocr.start SOCKET GRACE IDLE`.

The server (pipeline.engines.ocr.server) parses pictures from strangers with large libraries. So this module binds the socket, and a fork
of this process enters a sandbox (pipeline.sandbox) before it loads any of them. The libraries start threads when they are loaded, and a
sandbox holds only for threads that are started in it. This process waits for its fork, and removes the socket, because the fork may
delete nothing.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.hardening import limit, limit_tasks, make_private
from pipeline.sandbox import prepare
from pipeline.sandbox.libraries import library_paths
from pipeline.types import MB

if TYPE_CHECKING:  # loaded in the sandbox only
    from pipeline.engines.ocr.reader import Reader

#: The packages that the server loads, with their models, and those that these load.
_PACKAGES = ("PIL", "cv2", "msgspec", "numpy", "onnxruntime", "pillow_heif", "rapidocr", "yaml", "zxingcpp")
#: What onnxruntime asks about the processor.
_PROCESSOR = ("/proc/cpuinfo", "/sys/devices/system/cpu")

#: Bytes. The server has its log and its lock open for writing, and must not fill the disk with them.
_MAX_LOG = 16 * MB


def _load() -> Reader:
    from pipeline.engines.ocr.reader import Reader

    return Reader()


def main(load: Callable[[], Reader] = _load) -> None:
    """Serves until it is time to end, and then ends this process. Tests pass their own `load`, which gives the reader.

    The starter of this process holds the file lock of the socket, which is inherited. So this is the only server, and a socket file
    that exists was left by a dead one.
    """
    path, grace, idle = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    make_private()
    enter_sandbox = prepare([*library_paths(_PACKAGES), *_PROCESSOR])
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        server = os.fork()
        if not server:
            limit(resource.RLIMIT_FSIZE, _MAX_LOG)
            limit_tasks()
            enter_sandbox()
            from pipeline.engines.ocr.server import serve

            serve(listener, load(), grace=grace, idle=idle)
            return
    _, status = os.waitpid(server, 0)
    Path(path).unlink(missing_ok=True)
    sys.exit(abs(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
