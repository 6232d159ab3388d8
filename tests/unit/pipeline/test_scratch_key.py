"""The keys of scratch objects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scratch_key import SAFE_KEY, ScratchKey, job_prefix, owner_of

numbers = st.integers(0, 10_000)
jobs = st.from_regex(r"job_[0-9A-Za-z]{24}", fullmatch=True)
keys = st.builds(ScratchKey.of_input, jobs, chunk=numbers) | st.builds(
    ScratchKey.of_staged, jobs, round_=numbers, chunk=numbers, epoch=numbers
)


def test_the_keys_are_written_as_docs_adr_0002_says():
    assert str(ScratchKey.of_staged("job_1", round_=1, chunk=0, epoch=12)) == "job_1/r1-c0-e12"
    assert str(ScratchKey.of_input("job_1", chunk=3)) == "job_1/in-c3"


@given(key=keys)
def test_what_is_written_is_read_back_and_stores_take_it(key):
    text = str(key)
    assert ScratchKey.parse(text) == key
    assert SAFE_KEY.fullmatch(text)
    assert owner_of(text) == key.job
    assert text.startswith(job_prefix(key.job))


@given(one=keys, other=keys)
def test_two_objects_never_have_the_same_key(one, other):
    assert (str(one) == str(other)) == (one == other)


def test_an_input_belongs_to_the_first_round():
    assert ScratchKey.of_input("job_1", chunk=3).round == 1


@pytest.mark.parametrize("text", ["", "job_1", "job_1/", "job_1/left", "job_1/.partial-a", "job_1/r1-c0-e1.x", "a/b/r1-c0-e1"])
def test_what_is_no_object_of_a_chunk_has_no_parsed_key(text):
    assert ScratchKey.parse(text) is None
