from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.packed import PackReader, PackWriter


def packed(bodies: dict[int, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    writer = PackWriter(out)
    for index, body in bodies.items():
        writer.add(index, body, mime="image/png")
    writer.finish()
    return out


@given(bodies=st.dictionaries(st.integers(0, 2999), st.binary(max_size=200), max_size=20))
def test_each_body_comes_back_under_its_index_with_its_facts(bodies):
    reader = PackReader(packed(bodies))
    assert {index: reader.read(index) for index in reader.entries} == bodies
    assert all(entry.facts == {"mime": "image/png"} for entry in reader.entries.values())


@given(cut=st.integers(1, 60))
def test_an_object_that_was_cut_short_is_refused(cut):
    whole = packed({0: b"abc", 1: b"d"}).getvalue()
    with pytest.raises(ValueError, match="scratch object"):
        PackReader(io.BytesIO(whole[:-cut]))
