"""Makes a child process end when its parent ends, even if the parent is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1  #: from linux/prctl.h
PARENT = "EXTRACT_IMAGE_PARENT"  #: the environment variable in which `serve` gives its process id to its children


def end_with_parent() -> bool:
    """If PARENT is set, sends SIGTERM to this process as soon as the parent has ended. Returns whether that outlasts an exec."""
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return True
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # the parent ended before the line above
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
    return False
