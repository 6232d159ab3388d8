from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan import cut, halves, pack_calls
from pipeline.types import Staged


def image(index: int, size: int) -> Staged:
    return Staged(index=index, mime="image/png", size=size, received=size, sha256="", width=1, height=1)


@given(images=st.integers(1, 3000), size=st.integers(1, 900))
def test_every_image_is_in_exactly_one_chunk_in_order(images, size):
    chunks = cut(images, size)
    covered = [index for chunk in chunks for index in range(chunk.first, chunk.first + chunk.count)]
    assert covered == list(range(images))
    assert [chunk.no for chunk in chunks] == list(range(len(chunks)))
    assert all(1 <= chunk.count <= size for chunk in chunks)


@given(sizes=st.lists(st.integers(1, 30), max_size=60), pictures=st.integers(1, 20), raw_bytes=st.integers(1, 60))
def test_calls_keep_every_image_in_order_within_count_and_bytes(sizes, pictures, raw_bytes):
    images = [image(index, size) for index, size in enumerate(sizes)]
    calls = pack_calls(images, pictures=pictures, raw_bytes=raw_bytes)
    assert [one for call in calls for one in call] == images
    for call in calls:
        assert len(call) <= pictures
        assert len(call) == 1 or sum(one.size for one in call) <= raw_bytes


def test_an_image_too_large_for_a_shared_call_goes_alone():
    calls = pack_calls([image(0, 5), image(1, 50), image(2, 5)], pictures=10, raw_bytes=20)
    assert [[one.index for one in call] for call in calls] == [[0], [1], [2]]


@given(count=st.integers(2, 50))
def test_halves_are_both_smaller_and_together_the_whole(count):
    group = tuple(range(count))
    first, second = halves(group)
    assert first + second == group
    assert 0 <= len(second) - len(first) <= 1
