from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.merge import MalformedJson, merge, merge_documents, parse_json
from pipeline.types import Form, Reply


def reply(text: str, *indexes: int) -> Reply:
    return Reply(indexes=indexes, text=text)


def test_a_single_text_is_the_result_as_it_is():
    assert merge([reply("  Hello\n", 0, 1)], Form.TEXT) == "  Hello\n"


def test_several_texts_join_in_image_order_under_the_images_they_speak_of():
    replies = [reply("third", 4), reply("first", 0, 1), reply("second", 2, 3)]
    assert merge(replies, Form.TEXT) == "Images 1 to 2\nfirst\n\nImages 3 to 4\nsecond\n\nImage 5\nthird"


def test_json_without_its_fence_is_what_a_parser_takes():
    assert merge([reply('```json\n{"a": 1}\n```', 0)], Form.JSON) == '{"a":1}'


def test_json_arrays_concatenate_in_image_order():
    assert json.loads(merge([reply("[3]", 2), reply("[1, 2]", 0, 1)], Form.JSON)) == [1, 2, 3]


def test_json_objects_merge_deeply_with_lists_joined_and_conflicts_listed():
    first = '{"items": [1], "shop": {"name": "A", "city": "Bern"}, "total": 5, "note": null}'
    second = '{"items": [2, 3], "shop": {"name": "B", "city": "Bern"}, "total": 5, "note": "x"}'
    assert json.loads(merge([reply(first, 0), reply(second, 1)], Form.JSON)) == {
        "items": [1, 2, 3],
        "shop": {"name": ["A", "B"], "city": "Bern"},
        "total": 5,
        "note": "x",
    }


def test_one_and_true_are_different_values():
    assert merge_documents([1, True, 1.0]) == [1, True, 1.0]


def test_records_are_one_array_sorted_by_index():
    replies = [Reply(indexes=(2,), text="", result="c"), Reply(indexes=(0,), text="", result={"a": 1})]
    assert json.loads(merge(replies, Form.RECORDS)) == [{"index": 0, "result": {"a": 1}}, {"index": 2, "result": "c"}]


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', "Sure: {}", "{} {}", '"\\ud800"', "[" * 100_000 + "]" * 100_000, "```json\n{}\n``` done"]
)
def test_what_a_strict_parser_refuses_is_malformed(text):
    with pytest.raises(MalformedJson):
        parse_json(text)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(documents, min_size=1, max_size=5))
def test_any_merged_document_parses_again(values):
    replies = [reply(json.dumps(value), index) for index, value in enumerate(values)]
    assert json.loads(merge(replies, Form.JSON)) == json.loads(json.dumps(merge_documents(values)))


@given(value=documents)
def test_a_single_document_is_unchanged(value):
    assert json.loads(merge([reply(json.dumps(value), 0)], Form.JSON)) == json.loads(json.dumps(value))


@given(lists=st.lists(st.lists(documents, max_size=4), min_size=1, max_size=6))
def test_no_element_of_an_array_is_lost(lists):
    assert merge_documents(lists) == [item for one in lists for item in one]
