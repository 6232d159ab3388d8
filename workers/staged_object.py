"""A chunk's object that the thread which put it to scratch still has in hand: its extract step need not fetch it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedObject:
    """The stage step makes it, and the next step of the same thread is given it. The thread closes it after that step."""

    key: str  #: its scratch key
    file: IO[bytes]  #: what was put under the key

    def opened(self, key: str) -> IO[bytes] | None:
        """The object from its start, the caller's to close; None if it is not the object of that key."""
        if self.key != key:
            return None
        self.file.seek(0)
        return self.file

    def close(self) -> None:
        """May be called again."""
        self.file.close()
