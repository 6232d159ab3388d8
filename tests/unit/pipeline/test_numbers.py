"""Numbers keep the digits that they came with."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.merge import merge
from pipeline.numbers import read_json, write_json
from pipeline.types import Form, Reply

TEXTS = ["12.50", "0.10", "1.0", "-0.0", "12.5", "1e16", "1.10e3", "0.1000000000000000055", "3", "123456789012345678901234567890"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_number_is_written_with_its_own_digits(text):
    written = write_json(read_json(f'{{"total":{text}}}'))
    assert written in (f'{{"total": {text}}}', f'{{"total": {text.replace("e", "E+")}}}')
    assert json.loads(written) == json.loads(f'{{"total":{text}}}')


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists
    )
)
def test_other_values_are_written_as_the_standard_library_writes_them(value):
    assert write_json(value) == json.dumps(value)
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["1e999", "-1e999"])
def test_a_number_that_no_float_holds_is_refused(text):
    with pytest.raises(ValueError, match="too large"):
        read_json(text)


def test_what_is_neither_json_nor_a_number_is_not_written():
    with pytest.raises(TypeError, match="set is not JSON"):
        write_json({"a": {1}})


def test_a_merged_answer_keeps_the_digits_of_its_numbers_and_one_of_equal_values():
    replies = [Reply(indexes=(0,), text='{"total":12.50,"tax":[2.10]}'), Reply(indexes=(1,), text='{"total":12.5,"tax":[0.40]}')]
    assert merge(replies[:1], Form.JSON) == '{"total":12.50,"tax":[2.10]}'
    assert merge(replies, Form.JSON) == '{"total":12.50,"tax":[2.10,0.40]}'
