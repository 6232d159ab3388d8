"""Waits until a service that this process has started is ready."""

from __future__ import annotations

import re
import subprocess
import threading


def ready_url(process: subprocess.Popen[str], *, seconds: float) -> str:
    """The URL that `serve` prints when it is ready. Empty if it ended, or was not ready in `seconds`; then the process is gone."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        for line in process.stdout or ():
            if found := re.search(r"ready at (http://\S+)", line):
                return found[1]
    finally:
        timer.cancel()
    process.wait()
    return ""
