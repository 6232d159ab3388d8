"""What a thread keeps of what it has put to scratch."""

from __future__ import annotations

import threading
from io import BytesIO

from workers.staged_cache import StagedCache


def test_what_was_put_is_there_once_from_its_start():
    hand = StagedCache()
    hand.keep("job/c0", BytesIO(b"packed"))
    file = hand.take("job/c0")
    assert file is not None
    assert file.read() == b"packed"
    assert not file.closed
    assert hand.take("job/c0") is None


def test_another_object_is_not_taken_for_it():
    hand = StagedCache()
    kept = BytesIO(b"packed")
    hand.keep("job/c0", kept)
    assert hand.take("job/c1") is None
    hand.keep("job/c1", BytesIO(b"next"))
    assert kept.closed
    assert hand.take("job/c0") is None


def test_a_drop_closes_what_is_kept():
    hand = StagedCache()
    kept = BytesIO(b"packed")
    hand.keep("job/c0", kept)
    hand.drop()
    assert kept.closed
    assert hand.take("job/c0") is None


def test_each_thread_has_its_own():
    hand = StagedCache()
    hand.keep("job/c0", BytesIO(b"packed"))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(hand.take("job/c0")))
    thread.start()
    thread.join()
    assert seen == [None]
    assert hand.take("job/c0") is not None
