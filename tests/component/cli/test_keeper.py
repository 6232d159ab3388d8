"""The small process that `serve` becomes: it keeps the children, the signals and the descriptors of the process before the exec."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from cli.keeper import FAST_DEATHS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks at processes in /proc")

SECRET = "a-very-secret-key"

#: What `serve` does, with children that only sleep. Arguments: the lock's path, the command of the child `worker`, when it becomes small.
SERVE = f"""
import os, signal, sys
from cli.keeper import Kept, State, Stop
lock = open(sys.argv[1], "w")
import fcntl
fcntl.flock(lock, fcntl.LOCK_EX)
environment = {{b"PATH": os.environb[b"PATH"], b"SECRET": b"{SECRET}", b"ODD": b"\\xff\\xfe"}}
sleep = [b"sleep", b"1000"]
children = [
    Kept("web", sleep, environment, lock.fileno()),
    Kept("worker", [word.encode() for word in sys.argv[2].split()], environment),
    Kept("redis", [b"sh", b"-c", b"read line; exit 0"], environment, lifeline=True),
]
stop = Stop()
state = State(children, "json")
for child in children:
    child.start()
print(*(child.pid for child in children), flush=True)
if sys.argv[3] == "signal":
    # The signal has come, but the process has not acted on it when it is replaced.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    os.kill(os.getpid(), signal.SIGTERM)
if sys.argv[3] == "death":
    os.kill(children[0].pid, signal.SIGKILL)
if sys.argv[3] != "never":
    state.become_small(stop, [lock.fileno()])
print("large", flush=True)
code = state.watch(stop)
state.end(stop)
sys.exit(code)
"""


class Running:
    def __init__(self, folder: Path, when: str = "at once", worker: str = "sleep 1000") -> None:
        self.lock = folder / "lock"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self.lock), worker, when], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.first = [int(number) for number in self.process.stdout.readline().split()]

    def wait_small(self) -> None:
        wait_for(lambda: "-S" in psutil.Process(self.process.pid).cmdline())

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, object]]]:
        """Returns the exit code and the lines of the log."""
        if number:
            self.process.send_signal(number)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]


def has_begun(pid: int) -> bool:
    return psutil.Process(pid).name() in {"sleep", "sh"}


def files(pid: int) -> set[str]:
    return {os.path.realpath(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


def wait_for(true: object) -> None:
    assert callable(true)
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(params=["at once", "never"])
def running(request, tmp_path):
    """Also the process that can't be replaced does all this."""
    started = Running(tmp_path, request.param)
    if request.param == "at once":
        started.wait_small()
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_its_children_and_itself_when_it_is_told_to(running, number):
    assert [child.pid for child in running.children()] == running.first
    code, log = running.end(number)
    assert (code, log) == (0, [])
    assert not any(psutil.pid_exists(pid) for pid in running.first)


def test_a_child_that_ends_is_started_again_with_the_same_command_environment_and_descriptor(running):
    web, worker, redis = running.first
    for pid in (web, worker, redis):
        wait_for(partial(has_begun, pid))
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(running.children()) == 3 and not {child.pid for child in running.children()} & set(running.first))
    wait_for(lambda: sorted(child.name() for child in running.children()) == ["sh", "sleep", "sleep"])
    again = next(child for child in running.children() if child.name() == "sleep")
    assert b"SECRET=" + SECRET.encode() in Path(f"/proc/{again.pid}/environ").read_bytes().split(b"\0")
    assert b"ODD=\xff\xfe" in Path(f"/proc/{again.pid}/environ").read_bytes().split(b"\0")
    assert any(str(running.lock) in files(child.pid) for child in running.children())
    _, log = running.end()
    assert {line["role"] for line in log} == {"web", "worker", "redis"}
    assert all(
        (line["event"], line["code"], line["logger"], line["level"]) == ("process_ended", -9, "cli.serve", "error")
        for line in log
    )


def test_the_lock_is_held_until_the_end(running):
    with running.lock.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        running.end()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_when_it_is_killed_the_process_with_a_lifeline_ends(running):
    web, worker, redis = running.first
    running.process.kill()
    wait_for(lambda: not psutil.pid_exists(redis) or psutil.Process(redis).status() == "zombie")
    for pid in (web, worker):
        os.kill(pid, signal.SIGKILL)


def test_a_signal_that_comes_while_the_process_is_replaced_is_not_lost(tmp_path):
    assert Running(tmp_path, "signal").end(number=0) == (0, [])


def test_a_child_that_ends_while_the_process_is_replaced_is_started_again(tmp_path):
    running = Running(tmp_path, "death")
    running.wait_small()
    wait_for(lambda: len(running.children()) == 3 and running.first[0] not in {child.pid for child in running.children()})
    code, log = running.end()
    assert (code, [line["role"] for line in log]) == (0, ["web"])


def test_it_gives_up_with_1_when_a_child_keeps_dying(tmp_path):
    code, log = Running(tmp_path, worker="false").end(number=0)
    assert code == 1
    assert [(line["role"], line["code"]) for line in log] == [("worker", 1)] * (FAST_DEATHS + 1)


def test_it_shows_no_secret_in_its_command_or_environment_and_goes_on_without_a_reader_of_its_log(tmp_path):
    running = Running(tmp_path)
    running.wait_small()
    assert SECRET not in " ".join(psutil.Process(running.process.pid).cmdline())
    if os.geteuid() == 0:  # others may not read it at all
        assert SECRET.encode() not in Path(f"/proc/{running.process.pid}/environ").read_bytes()
    assert running.process.stderr
    running.process.stderr.close()
    os.kill(running.first[1], signal.SIGKILL)
    wait_for(lambda: running.first[1] not in {child.pid for child in running.children()} and len(running.children()) == 3)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=60) == 0
    assert running.process.stdout
    running.process.stdout.close()
