"""What a check of the books has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXAMPLES = 5  #: of each check; the number of findings is always the whole number


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What one check has looked at and found."""

    check: str  #: a name of storage.books.table
    looked_at: int  #: rows or objects
    found: int  #: how many of them are wrong
    in_flight: int = 0  #: how many look wrong only because something is under way
    examples: Sequence[str] = ()  #: the first EXAMPLES findings


class Tally:
    """Counts findings one by one, so that any number of them takes no memory."""

    def __init__(self, check: str) -> None:
        self._check = check
        self._found = 0
        self._examples: list[str] = []
        self.in_flight = 0
        self.looked_at = 0

    def add(self, text: str, *, times: int = 1) -> None:
        """Counts a finding, or one that stands for several rows."""
        self._found += times
        if len(self._examples) < EXAMPLES:
            self._examples.append(text)

    def checked(self) -> Checked:
        return Checked(
            check=self._check,
            looked_at=self.looked_at,
            found=self._found,
            in_flight=self.in_flight,
            examples=self._examples,
        )
