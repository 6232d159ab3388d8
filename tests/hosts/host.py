"""Hosts: namespaces of one machine that share no network, host name, process ids, or file system that can be written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from testbed import ROOT
from tests.hosts.switch import DEVICE, mac_of

DISK = "/tmp"  #: where a host has its own file system; all else is read-only there
DISK_MB = 1024
NETWORK_BITS = 24
READY_SECONDS = 20.0
RUN_SECONDS = 120.0
TOOLS = ("unshare", "nsenter", "ip", "mount", "nginx")
SETTINGS = {"TMPDIR": f"{DISK}/tmp", "HOME": f"{DISK}/home", "DATA_DIR": f"{DISK}/data"}

#: Makes the host's file systems, and then sleeps as the first process of the host: when it ends, all of the host's processes do.
#: The code may be below /tmp. So the disk is put together at /mnt, with the folders of the code in it, and then moved to /tmp.
_BOOT = """
set -e
hostname "$1"; disk=$2; shift 2
mount --bind "$disk" /mnt
mkdir -p -m 1777 /mnt/tmp /mnt/data /mnt/home
for each; do
  mkdir -p "/mnt/${each#/tmp/}"; mount --rbind "$each" "/mnt/${each#/tmp/}"
done
mount --move /mnt /tmp
cut -d' ' -f5 /proc/self/mountinfo | while read -r target; do
  case "$target" in /proc*|/sys*|/dev*|/tmp) ;; *) mount -o remount,bind,ro "$target" 2>/dev/null || true ;; esac
done
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
echo ready
exec sleep infinity
"""
_IN_ROOT = 'cd "$0" && exec "$@"'


def why_not() -> str:
    """Why no hosts can be made here, "" if they can."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"several hosts need {', '.join(missing)}"
    if os.geteuid() or not os.access("/dev/net/tun", os.W_OK):
        return "several hosts need root and /dev/net/tun"
    tried = subprocess.run(
        [
            "unshare",
            "--net",
            "--uts",
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--mount-proc",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/mnt",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"several hosts need namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class Network:
    """The switch, and the orders to it."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.hosts.switch"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
            )
        self._lock = threading.Lock()

    def order(self, do: str, name: str = "", **more: str) -> dict[str, int]:
        """Gives the switch an order. Returns its numbers: frames, lost, `cut NAME`, and others."""
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps({"do": do, "name": name, **more}).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the switch has ended")
        return dict(json.loads(answer))

    def join(self, name: str, pid: int, address: str) -> None:
        """Connects the network namespace of a process."""
        self.order("join", name, pid=str(pid), address=address)
        inside = ("nsenter", "-t", str(pid), "-n", "ip")
        mac = ":".join(f"{byte:02x}" for byte in mac_of(address))
        for arguments in (
            ("link", "set", DEVICE, "address", mac, "up"),
            ("addr", "add", f"{address}/{NETWORK_BITS}", "dev", DEVICE),
        ):
            subprocess.run((*inside, *arguments), check=True, capture_output=True)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Host:
    """A host that runs. `disk`: the folder that is its /tmp; it outlives the host, so that the host can start again with it."""

    def __init__(self, network: Network, label: str, *, name: str, address: str, disk: Path) -> None:
        """`label`: its place in the plan, such as `worker-1`. `name`: its host name."""
        self.label, self.name, self.address, self.disk = label, name, address, disk
        self._network = network
        spaces = (
            "--net",
            "--uts",
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        )
        code = sorted({str(Path(path)) for path in (ROOT, sys.prefix, sys.base_prefix) if str(path).startswith(f"{DISK}/")})
        code = [path for path in code if not any(path.startswith(f"{other}/") for other in code)]
        self._first = subprocess.Popen(
            ["unshare", *spaces, "sh", "-c", _BOOT, "boot", name, str(disk), *code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout
        assert self._first.stderr
        if self._first.stdout.readline() != "ready\n":
            raise RuntimeError(f"the host {label} did not start: {self._first.stderr.read()}")
        self.pid = psutil.Process(self._first.pid).children()[0].pid
        network.join(label, self.pid, address)

    def start(self, command: Sequence[str], *, settings: Mapping[str, str], log: Path) -> Process:
        """Runs a command in the host, from the folder of the code."""
        with log.open("ab") as out:
            made = subprocess.Popen(
                self._inside(command),
                env=_environment(settings),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return Process(made)

    def open(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """The same, with pipes to it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self._inside(command), env=_environment({}), stdin=pipe, stdout=pipe, text=True)

    def run(self, command: Sequence[str], *, settings: Mapping[str, str] | None = None) -> str:
        """Runs a command in the host to its end. Returns its output."""
        done = subprocess.run(
            self._inside(command),
            env=_environment(settings or {}),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} on {self.label}: {done.stdout}{done.stderr}")
        return done.stdout

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-a", "sh", "-c", _IN_ROOT, str(ROOT), *command]

    def power_off(self) -> None:
        """Ends the host as a power cut does: nothing is said to anybody, and its connections stay half-open for the others."""
        if self._first.returncode is not None:
            return
        self._network.order("cut", self.label)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._first.wait()
        for pipe in (self._first.stdout, self._first.stderr):
            if pipe:
                pipe.close()
        self._network.order("leave", self.label)


class Process:
    """A process in a host. nsenter(1) stands for it outside, and ends as it does."""

    def __init__(self, outside: subprocess.Popen[bytes]) -> None:
        self._outside = outside
        self.since = time.monotonic()
        deadline = time.monotonic() + READY_SECONDS
        self.pid = 0
        while not self.pid and outside.poll() is None and time.monotonic() < deadline:
            with suppress(psutil.Error, IndexError):
                self.pid = psutil.Process(outside.pid).children()[0].pid
        #: Its id in the host, as it knows it itself.
        self.own_pid = _own_pid(self.pid)

    def poll(self) -> int | None:
        return self._outside.poll()

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self.pid and self._outside.poll() is None:
                os.kill(self.pid, number)

    def wait(self, seconds: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._outside.wait(seconds)
        pipe: IO[bytes] | None = self._outside.stdin
        if pipe:
            pipe.close()
        return code


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **SETTINGS, **settings}


def _own_pid(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A new empty disk for a host."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=1777", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
