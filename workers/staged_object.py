"""A chunk's object that a thread keeps after it has put it to scratch, so that its extract step need not fetch it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedObject:
    """The stage step makes it, and the next step of the same thread reads it. The thread closes it after that step."""

    key: str  #: its scratch key
    file: IO[bytes]  #: the bytes that were put under the key

    def opened(self, key: str) -> IO[bytes] | None:
        """The object, read from its start, which the caller closes. None if this is not the object of `key`."""
        if self.key != key:
            return None
        self.file.seek(0)
        return self.file

    def close(self) -> None:
        """Closes the object. May be called more than once."""
        self.file.close()
