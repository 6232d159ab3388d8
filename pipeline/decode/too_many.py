"""The limit on how many parts of a file are looked at one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

#: Most parts of a file. A PNG of 20 MB whose pixels are in chunks of 1 kB has 20,000; in one chunk for each row it has 30,000.
MAX_PARTS = 50_000

Part = TypeVar("Part")


class TooManyParts(Exception):
    """The file has more parts than MAX_PARTS, or than its format's own limit."""


def limited(parts: Iterable[Part], most: int = MAX_PARTS) -> Iterator[Part]:
    """Yields `parts`. Raises TooManyParts if there are more than `most`."""
    for number, part in enumerate(parts):
        if number == most:
            raise TooManyParts
        yield part
