"""A decoder child that obeys the last bytes of poisoned pictures: `python -m tests.torture.decode_child`."""

from __future__ import annotations

import threading

from pipeline.decode import child, picture
from pipeline.types import Prepared, Refused
from tests.fakes import hooked_decode_child

MORE_THAN_IT_MAY = 10**10  #: bytes


def decode(kind: str, data: bytes) -> Prepared | Refused:
    if data.endswith(b"!memory"):
        bytearray(MORE_THAN_IT_MAY)
    if data.endswith(b"!hang"):
        threading.Event().wait()
    if data.endswith(b"!crash"):
        return hooked_decode_child.decode(kind, data)
    return picture.decode(kind, data)


if __name__ == "__main__":
    child.main(decode)
