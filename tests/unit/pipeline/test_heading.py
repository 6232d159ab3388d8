"""The line above one of several texts names the images that the text speaks of."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.merge import heading


@pytest.mark.parametrize(
    ("indexes", "line"),
    [
        ([0], "Image 1"),
        ([0, 1, 2], "Images 1 to 3"),
        ([3, 5], "Images 4, 6"),
        ([3, 4, 8], "Images 4 to 5, 9"),
        ([3, 699, 700], "Images 4, 700 to 701"),
    ],
)
def test_neighbours_are_named_by_the_first_and_the_last(indexes, line):
    assert heading(indexes) == line


@given(st.sets(st.integers(0, 3000), min_size=1).map(sorted))
def test_every_image_is_named_and_no_other(indexes):
    named: list[int] = []
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", heading(indexes)):
        named += range(int(first), int(last or first) + 1)
    assert [number - 1 for number in named] == indexes
