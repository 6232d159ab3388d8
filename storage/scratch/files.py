"""Scratch objects as files in a folder on one machine. It implements `pipeline.ports.Scratch`."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pipeline.errors import Permanent, Transient, not_allowed, os_error, os_errors
from pipeline.scratch_key import SAFE_KEY

_PARTIAL = ".partial-"


class FileScratch:
    """Stores each object as one file below `root`. Raises FileNotFoundError, Transient and Permanent as the port says."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._root.mkdir(parents=True, exist_ok=True)

    @os_errors()
    def put(self, key: str, body: IO[bytes]) -> None:
        path = self._path(key)
        body.seek(0)
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, partial = tempfile.mkstemp(prefix=_PARTIAL, dir=path.parent)
                break
            except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
                if self._root.exists() and not self._root.is_dir():  # an operator can fix this for all jobs at once
                    raise not_allowed(f"{self._root} is not a folder: {error}") from error
                if path.parent.is_file() or isinstance(error, NotADirectoryError):
                    raise
                # A cleanup removed the empty folder meanwhile.
        try:
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)
            Path(partial).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(partial).unlink()
            raise

    def open(self, key: str) -> IO[bytes]:
        with os_errors():
            return io.BufferedReader(_File(self._path(key)))

    def delete(self, keys: Iterable[str]) -> None:
        failed: list[str] = []
        waiting_helps = False
        for key in keys:
            path = self._path(key)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                failed.append(key)
                waiting_helps |= isinstance(os_error(error), Transient)
            for parent in path.parents:
                if parent == self._root:
                    break
                try:
                    parent.rmdir()
                except OSError:  # not empty, or gone already
                    break
        if failed:
            text = f"{len(failed)} scratch objects could not be deleted, the first is {failed[0]}"
            raise Transient(text) if waiting_helps else Permanent(text)

    def list(self, prefix: str) -> Iterator[str]:
        # The walk starts at the folder part of the prefix, so that listing one job does not read the folders of others.
        start = self._root / prefix.rpartition("/")[0]
        for folder, _, names in os.walk(start):
            for name in sorted(names):
                key = (Path(folder) / name).relative_to(self._root).as_posix()
                if key.startswith(prefix):
                    yield key

    def ages(self, prefix: str) -> Iterator[tuple[str, float]]:
        for key in self.list(prefix):
            with suppress(FileNotFoundError), os_errors():  # it was deleted meanwhile
                yield key, time.time() - self._path(key).stat().st_mtime

    def abort_uploads(self, seconds: float) -> int:  # noqa: ARG002 - the port's
        """Returns 0. What a killed writer has left is a file that `list` gives."""
        return 0

    def _path(self, key: str) -> Path:
        if not SAFE_KEY.fullmatch(key) and _PARTIAL not in key:
            raise ValueError(f"no scratch key: {key!r}")
        path = self._root / key
        if not path.is_relative_to(self._root) or ".." in path.parts:
            raise ValueError(f"no scratch key: {key!r}")
        return path


class _File(io.FileIO):
    """An object's file, open for reading. It also translates errors of the disk that occur after the file was opened."""

    @os_errors()
    def readinto(self, buffer: Any) -> int | None:
        return super().readinto(buffer)

    @os_errors()
    def readall(self) -> bytes:
        return super().readall()
