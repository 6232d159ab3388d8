"""Small file systems, which the torture fills and empties."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MB = 1 << 20
FILLER = "filler"


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        if _mount(Path(folder), 1):
            subprocess.run(["umount", folder], check=False)
            return True
    return False


def _mount(folder: Path, megabytes: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of this size at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount(folder, megabytes):
        raise RuntimeError(f"no file system can be mounted at {folder}")
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(disk: Path) -> None:
    """Takes all of the room that is left."""
    with suppress(OSError), (disk / FILLER).open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * MB)
    with suppress(OSError), (disk / FILLER).open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def left(disk: Path) -> int:
    """The bytes of room that are left."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def empty(disk: Path) -> None:
    (disk / FILLER).unlink(missing_ok=True)
