"""A `tmp_path` in memory, for folders whose tests write to a database all the time and test no durability.

SQLite waits for the disk at each commit of the service, as it must: 2 to 20 ms each time, in place of 0.01 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rows import quick_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """An empty folder in /dev/shm, or on the disk if there is no /dev/shm. It is deleted at the end of the test."""
    with quick_folder() as folder:
        yield folder
