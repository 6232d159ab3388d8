"""Lays out the code of an earlier revision, so that its processes can run beside those of this one."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import ROOT


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """The files of a git revision, in a folder that is deleted afterwards."""
    git = shutil.which("git") or "git"
    packed = subprocess.run([git, "archive", "--format=tar", revision], cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory(prefix="revision-", ignore_cleanup_errors=True) as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)
