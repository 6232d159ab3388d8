"""Patterns that cannot be checked in bounded time are left out of the check, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from pipeline.records.patterns import loosened
from pipeline.records.schema import records_schema
from pipeline.records.validate import compile_schema, unchecked_patterns

DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"  #: what Pydantic 2.11 to 2.13 write
EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"  #: Zod 4's


@pytest.mark.parametrize(
    "pattern", [DECIMAL, EMAIL, "(?=a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", r"(?<year>\d{4})-\k<year>", r"(?P<a>x)(?P=a)"]
)
def test_a_pattern_that_needs_backtracking_is_told_to_the_model_and_not_checked(pattern):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert unchecked_patterns(schema) == ["#/properties/a/pattern"]
    assert compile_schema(schema)({"a": "anything"}) == ""
    assert '/a: 1 is not of type "string"' in compile_schema(schema)({"a": 1})
    assert '"pattern"' in records_schema(schema, json_mode=True)[1]


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\p{L}+$", "Žižkov", "a1"),
        (r"^\p{Script=Cyrillic}+$", "Чай", "Tea"),
        (r"^\d+$", "12", "١٢"),
        (r"^(?<year>\d{4})$", "2026", "26"),
        (r"^(?P<year>\d{4})$", "2026", "26"),
        (r"^\u00e9$", "é", "e"),
        (r"^\u{1F375}$", "🍵", "t"),
        (r"^\ud83c\udf75$", "🍵", "t"),
        (r"^\/a\/$", "/a/", "a"),
        (r"^[^]$", "\n", ""),
        (r"^a\Z", "a", "ab"),
        (r"^\x41\0$", "A\0", "A"),
        (r"^[\ud83c\udf75\]\0]+$", "🍵]", "t"),
        (r"^a[]$|^b$", "b", "a"),
        (r"^\\Z$", r"\Z", "Z"),
    ],
)
def test_what_javascript_and_python_spell_otherwise_is_checked(pattern, good, bad):
    schema = {"type": "string", "pattern": pattern}
    assert unchecked_patterns(schema) == []
    assert compile_schema(schema)(good) == ""
    assert compile_schema(schema)(bad)


UNCHECKED = {"pattern": "(?=a)b"}


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        ({"not": UNCHECKED}, "b"),
        ({"if": UNCHECKED, "then": False}, "b"),
        ({"if": {"not": {"$ref": "#/$defs/a"}}, "else": False, "$defs": {"a": UNCHECKED}}, "b"),
        ({"oneOf": [UNCHECKED, {"type": "string"}]}, "b"),
        ({"contains": UNCHECKED, "maxContains": 1}, ["a", "b"]),
        ({"patternProperties": {"(?=a)b": True, "^c": True}, "additionalProperties": False}, {"b": 1}),
        (
            {"if": {"patternProperties": {"(?=a)b": False}}, "then": {"properties": {"a": True}}, "unevaluatedProperties": False},
            {"a": 1},
        ),
    ],
    ids=str,
)
def test_leaving_out_a_pattern_refuses_no_record(schema, record):
    assert unchecked_patterns(schema)
    assert compile_schema(schema)(record) == ""


TEXTS = st.sampled_from(["a", "b", "ab", "ba", ""])
LEAF = st.sampled_from(
    [True, {"pattern": "a"}, {"pattern": "b"}, {"type": "string"}, {"const": "a"}, {"maxLength": 1}, {"$ref": "#/$defs/p"}]
)


def _composed(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    parts = st.lists(inner, min_size=1, max_size=3)
    names = st.dictionaries(TEXTS, inner, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("not", "if", "then", "else", "contains", "items", "propertyNames"), inner),
            **dict.fromkeys(("additionalProperties", "unevaluatedProperties", "unevaluatedItems"), inner),
            **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), parts),
            **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), names),
            "maxContains": st.integers(1, 2),
        },
    )


@settings(max_examples=300)
@given(
    schema=st.recursive(LEAF, _composed, max_leaves=8),
    records=st.lists(
        TEXTS
        | st.integers(0, 1)
        | st.lists(TEXTS, max_size=3)
        | st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=3),
        min_size=1,
        max_size=6,
    ),
)
def test_a_loosened_schema_takes_whatever_the_whole_one_takes(schema, records):
    whole = {"allOf": [schema], "$defs": {"p": {"pattern": "a"}}}
    loose, _ = loosened(whole, lambda pattern: pattern != "a")
    before, after = Draft202012Validator(whole), Draft202012Validator(loose)
    for record in records:
        assert after.is_valid(record) or not before.is_valid(record)


def test_a_schema_whose_patterns_can_all_be_checked_stays_as_it_is():
    schema = {
        "patternProperties": {"^a": {"oneOf": [{"pattern": "^a+$"}]}},
        "additionalProperties": False,
        "not": {"pattern": "b"},
    }
    assert loosened(schema, lambda _pattern: True) == (schema, [])
