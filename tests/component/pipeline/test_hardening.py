"""What processes of one user can learn of each other: a decoder that was taken over is one of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from testbed import ROOT

SCRIPT = """
import ctypes, os, signal, sys
from pipeline.hardening import make_private
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a process is once it has been started
ear, mouth = os.pipe()
if not (other := os.fork()):
    if sys.argv[1] == "private":
        make_private()
    os.write(mouth, b"x")
    signal.pause()
os.read(ear, 1)
for what in ("environ", f"fd/{ear}"):
    try:
        with open(f"/proc/{other}/{what}", "rb", buffering=0):
            print("read")
    except PermissionError:
        print("denied")
os.kill(other, 9)
os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize(("how", "seen"), [("as it is", ["read", "read"]), ("private", ["denied", "denied"])])
def test_another_process_of_the_same_user_sees_nothing_of_a_private_one(how, seen):
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == seen
