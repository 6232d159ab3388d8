"""How many images a decoder is sent at a time: small ones many, large ones one."""

from __future__ import annotations

import io
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pipeline.decode.once import SharedDecodes
from pipeline.stage import stage
from pipeline.types import MB, Fetched, Prepared, Refused
from tests.fakes.images import fake_decode

SMALL, LARGE = 0.0005, 0.8  #: seconds of a decoder


@pytest.fixture
def turns():
    """Stages so many images that are all there at once, in one thread, and gives how many were decoded in each turn."""
    shared = SharedDecodes()
    numbers = iter(range(10**6))  # no two images are the same

    def stage_them(images: int, seconds: float, *, job: str = "job", size: int = 0, copies: int = 1) -> list[int]:
        turns: list[int] = []
        brought = threading.Event()

        def decode(pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
            turns.append(len(pictures))
            for outcome in fake_decode(pictures):
                yield replace(outcome, seconds=seconds)

        def received():
            for index in range(images):
                number = next(numbers) // copies
                yield Fetched(index=index, data=b"img %d " % number + bytes(size))
            brought.set()

        with ThreadPoolExecutor(1) as executor:
            executor.submit(brought.wait)
            stage(received(), decode=decode, out=io.BytesIO(), executor=executor, shared=shared, job=job)
        return turns

    return stage_them


def test_small_images_are_sent_together_and_the_job_s_next_chunk_need_not_learn_it_anew(turns):
    assert turns(50, SMALL) == [1, 2, 4, 8, 16, 19]
    assert turns(60, SMALL) == [25, 25, 10]
    assert turns(3, SMALL, job="another") == [1, 2]


def test_large_images_are_sent_one_by_one_whatever_came_before(turns):
    assert turns(5, LARGE) == [1] * 5
    turns(100, SMALL)
    assert turns(45, LARGE) == [25, 12, 6, 2]
    assert turns(5, LARGE) == [1] * 5


def test_what_is_large_in_bytes_is_not_sent_together(turns):
    turns(100, SMALL)
    assert turns(6, SMALL, size=MB // 2) == [1] * 6
    assert turns(50, SMALL) == [25, 25]


def test_images_that_are_the_same_count_among_those_of_their_turn(turns):
    assert turns(62, SMALL, copies=2) == [1, 1, 2, 4, 8, 12, 3]


def test_a_turn_that_began_long_ago_raises_nothing():
    shared = SharedDecodes()
    for images in (1, 2, 4, 8, 16):
        shared.took("job", images, images * SMALL)
    shared.took("job", 1, LARGE)
    shared.took("job", 25, 25 * LARGE)
    assert shared.batch_size("job") == 1


def test_what_was_learnt_of_many_jobs_is_forgotten_before_it_fills_the_memory():
    shared = SharedDecodes()
    for number in range(5_000):
        shared.took(f"job {number}", 1, SMALL)
    assert shared.batch_size("job 4999") == 2
    assert sum(shared.batch_size(f"job {number}") == 2 for number in range(5_000)) == 1_000
