from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records.schema import MOST_CHARACTERS, SchemaFault, check_schema, records_schema
from pipeline.records.validate import compile_schema

RECEIPT = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["total"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}},
}


def checked(schema: Any):
    check_schema(schema)
    return compile_schema(schema)


def test_a_record_that_fits_has_no_fault():
    assert checked(RECEIPT)({"total": 3.5, "currency": "EUR", "lines": [{"text": "tea"}]}) == ""


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, '"total" is a required property'),
        ({"total": "3"}, '/total: "3" is not of type "number"'),
        ({"total": 1, "lines": [{"text": "a"}, {}]}, '/lines/1: "text" is a required property'),
        ("text", '"text" is not of type "object"'),
        (None, 'null is not of type "object"'),
    ],
)
def test_a_record_that_does_not_fit_is_told_where_and_why(record, said):
    assert said in checked(RECEIPT)(record)


def test_what_is_said_of_a_record_stays_short():
    fault = checked({"type": "object", "additionalProperties": {"type": "integer"}})({str(i): "x" * 1000 for i in range(100)})
    assert len(fault) < 600


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
LAUGHS = {f"l{i}": {"anyOf": [{"$ref": f"#/$defs/l{i + 1}"}] * 2} for i in range(30)} | {"l30": {"type": "null"}}
#: Of these a validator may look at each level twice for each look at the one above.
NESTED = {f"n{i}": {"unevaluatedProperties": False, "allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(30)}
NESTED |= {"n30": {"type": "object"}}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strin"}, "/type"),
        ({"required": "total"}, "/required"),
        ({"minimum": "3"}, "/minimum"),
        ({"items": [{"type": "string"}]}, "/items"),
        ({"pattern": "("}, "/pattern"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "no long counts"),
        ({"$ref": "https://schemas.example/receipt.json"}, "only a path within the schema"),
        ({"$ref": "file:///etc/passwd"}, "only a path within the schema"),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, "#/properties/a"),
        ({"$ref": 3}, "only a path within the schema"),
        ({"$ref": "#/$defs/none"}, "is not there"),
        ({"$ref": "#"}, "leads back"),
        ({"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}, "leads back"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "leads back"),
        ({"$ref": "#/$defs/l0", "$defs": LAUGHS}, "more than 2000 subschemas"),
        ({"$ref": "#/$defs/n0", "$defs": NESTED}, "more than 2000 subschemas"),
        ({"properties": {f"p{i}": {"pattern": f"^{i}"} for i in range(60)}}, "each pattern as 40"),
        ({"patternProperties": {f"^{i}": {} for i in range(60)}}, "each pattern as 40"),
        (DEEP, "levels deep"),
        ({"description": "x" * MOST_CHARACTERS}, "bytes"),
        ({"description": "\ud800"}, "no Unicode"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "another dialect"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        ({"properties": {"a": {"$id": "http://a.example/", "$ref": "#/b"}}}, "$id"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_schema_that_cannot_be_used_is_refused_with_where_and_why(schema, said):
    with pytest.raises(SchemaFault) as refused:
        checked(schema)
    assert said in str(refused.value)


@pytest.mark.parametrize("schema", [{"type": 1}, {"$ref": "#/x"}, {"pattern": "("}], ids=str)
def test_what_is_said_of_a_schema_stays_short(schema):
    with pytest.raises(SchemaFault) as refused:
        checked({"properties": {"n" * 10_000: schema}})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://a.example/b", "type": "object"},
        {"properties": {"$ref": {"type": "string"}, "minItems": {"type": "integer"}}},
        {"const": {"$ref": "https://not.a.reference/"}},
        {"definitions": {"a~b/c": {"type": "string"}}, "properties": {"x": {"$ref": "#/definitions/a~0b~1c"}}},
        {"$defs": {"a": {"type": "string"}}, "properties": {str(i): {"$ref": "#/$defs/a"} for i in range(300)}},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": False},
    ],
    ids=str,
)
def test_a_schema_of_another_kind_is_taken(schema):
    checked(schema)


def test_a_pattern_that_makes_others_hang_does_not_here():
    assert checked({"type": "string", "pattern": "^(a+)+$"})("a" * 30_000 + "!")  # backtracking would never come back


def test_the_model_is_shown_an_array_of_records_with_no_bounds_on_it():
    shown, words = records_schema(RECEIPT, json_mode=True)
    assert shown == {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "index": {"type": "integer"},
                "result": {
                    "type": "object",
                    "properties": {
                        "total": {"type": "number", "minimum": 0},
                        "currency": {"enum": ["EUR", "USD"]},
                        "lines": {"type": "array", "items": {"$ref": "#/$defs/part1"}},
                    },
                    "required": ["total"],
                    "additionalProperties": False,
                },
            },
            "required": ["index", "result"],
        },
        "$defs": {"part1": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}},
    }
    assert words == ""


def test_what_the_model_does_not_take_it_is_told_in_words():
    schema = {"type": "object", "properties": {"codes": {"type": "array", "minItems": 30, "items": {"pattern": "^[A-Z]+$"}}}}
    shown, words = records_schema(schema, json_mode=True)
    assert shown["items"]["properties"]["result"]["properties"]["codes"] == {"type": "array", "items": {}}
    assert '"minItems":30' in words
    assert "^[A-Z]+$" in words


@pytest.mark.parametrize("json_mode", [False, True])
def test_without_a_schema_a_record_is_a_text_or_in_json_mode_an_object(json_mode):
    shown, words = records_schema(None, json_mode=json_mode)
    assert shown["items"]["properties"]["result"]["type"] == ("object" if json_mode else "string")
    assert words == ""


NAMES = [
    "type",
    "properties",
    "items",
    "required",
    "enum",
    "const",
    "anyOf",
    "allOf",
    "oneOf",
    "not",
    "if",
    "then",
    "$ref",
    "$defs",
]
NAMES += ["pattern", "minItems", "maxItems", "minimum", "additionalProperties", "patternProperties", "prefixItems", "format"]
NAMES += ["dependentSchemas", "propertyNames", "contains", "uniqueItems", "unevaluatedProperties", "$anchor", "description", "a"]
TEXTS = st.sampled_from(
    ["string", "object", "array", "null", "#", "#/$defs/a", "#/properties/a", "#/a/0", "^a+$", "(", "a", "date"]
)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | TEXTS
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400)
@given(schema=st.dictionaries(st.sampled_from(NAMES), SCHEMAS, max_size=5), record=SCHEMAS)
def test_whatever_the_schema_it_is_refused_or_can_be_shown_and_checked(schema, record):
    try:
        check_schema(schema)
        fault_of = compile_schema(schema)
    except SchemaFault:
        return
    shown, _ = records_schema(schema, json_mode=True)
    check_schema(shown)
    assert isinstance(fault_of(record), str)
