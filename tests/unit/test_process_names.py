"""The counts of two processes are kept apart, also where both hosts have one name and both containers the same process ids."""

from __future__ import annotations

import subprocess
import sys

from testbed import ROOT

SAME_HOST = "import socket, os; socket.gethostname = lambda: 'node'; os.getpid = lambda: 7\n"
NAME = "from storage.redis.counts import process_name; print(process_name('worker'), process_name('worker'))"


def names() -> set[str]:
    done = subprocess.run([sys.executable, "-c", SAME_HOST + NAME], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_two_processes_have_two_names():
    first, second = names(), names()
    assert len(first) == len(second) == 1
    assert first != second
    assert all(name.startswith("worker@node:7-") for name in first | second)
