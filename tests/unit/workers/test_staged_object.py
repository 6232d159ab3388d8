"""What a thread has in hand of what it has put to scratch."""

from __future__ import annotations

from io import BytesIO

from workers.staged_object import StagedObject


def test_what_was_put_is_there_from_its_start():
    put = BytesIO(b"packed")
    put.seek(0, 2)
    file = StagedObject(key="job/r1-c0-e1", file=put).opened("job/r1-c0-e1")
    assert file is not None
    assert file.read() == b"packed"


def test_another_object_is_not_taken_for_it():
    put = BytesIO(b"packed")
    in_hand = StagedObject(key="job/r1-c0-e1", file=put)
    assert in_hand.opened("job/r1-c1-e1") is None
    in_hand.close()
    assert put.closed
