"""The request of a call that waits for minutes lies in a file, and not in memory."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import IO

from pipeline.errors import os_errors
from pipeline.types import Tier


def sent_from(body: bytes, tier: Tier) -> AbstractContextManager[bytes | IO[bytes]]:
    """From where the request is sent: in the tier `economy` from a file, which is deleted when it is closed.

    The caller deletes its own reference to `body`. Raises Transient or Permanent if the file can't be written.
    """
    return _on_disk(body) if tier is Tier.ECONOMY else nullcontext(body)


def _on_disk(body: bytes) -> IO[bytes]:
    with os_errors(), ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        file.write(body)
        file.seek(0)
        stack.pop_all()
    return file
