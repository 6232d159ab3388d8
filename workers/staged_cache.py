"""What a thread has just put to scratch, for the step that it goes on with: it need not be fetched back."""

from __future__ import annotations

import threading
from typing import IO


class StagedCache(threading.local):
    """One object a thread at most. `drop` closes it where the thread goes on with something else."""

    _key = ""
    _file: IO[bytes] | None = None

    def keep(self, key: str, file: IO[bytes]) -> None:
        """Takes the file over."""
        self.drop()
        self._key, self._file = key, file

    def take(self, key: str) -> IO[bytes] | None:
        """The object of that key, from its start, the caller's to close; None if it is not in hand."""
        if self._file is None or self._key != key:
            return None
        file, self._file = self._file, None
        file.seek(0)
        return file

    def drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
