"""Fixtures for the tests of workers."""

from __future__ import annotations

from typing import IO

import pytest

from tests.harness import Harness
from tests.in_memory import tmp_path

__all__ = ["tmp_path"]


@pytest.fixture
def opened(house: Harness) -> list[str]:
    """The keys that were read from scratch, each time."""
    keys: list[str] = []
    real = house.scratch.open

    def watched(key: str) -> IO[bytes]:
        keys.append(key)
        return real(key)

    house.scratch.open = watched
    return keys
