from __future__ import annotations

from typing import Any

import pytest
from jsonschema_rs import RegexOptions

from pipeline.records.cost import Weigher
from pipeline.records.first_fault import FaultFinder
from pipeline.records.schema import check_schema
from pipeline.records.validate import compile_schema

DEFS = {"$defs": {"a/b": {"properties": {"c d": {"type": "string"}}}}}


@pytest.mark.parametrize(
    ("schema", "record", "said"),
    [
        (
            {"additionalProperties": {"items": {"$ref": "#/$defs/a~1b"}}, **DEFS},
            {"k": [{"c d": 1}]},
            '/k/0/c d: 1 is not of type "string"',
        ),
        ({"allOf": [True, {"allOf": [{"items": {"type": "integer"}}]}]}, [1, "x"], '/1: "x" is not of type "integer"'),
        ({"properties": {"x": {"anyOf": [{"type": "null"}, {"type": "string"}]}}}, {"x": 3}, "/x: 3 is not valid under any of"),
        (
            {"properties": {"x": {"oneOf": [{"type": "integer"}, {"minimum": 1}]}}},
            {"x": 3},
            "/x: 3 is not valid under exactly one of",
        ),
        (
            {"properties": {"x": {"not": {"$ref": "#/$defs/q"}}}, "$defs": {"q": {"type": "integer"}}},
            {"x": 3},
            "/x: 3 is what the 'not'",
        ),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 3}, "'then'"),
        ({"if": {"required": ["a"]}, "else": {"required": ["b"]}}, {}, "'else'"),
        ({"contains": {"type": "null"}, "minContains": 2}, [None, 1], "'contains'"),
        ({"propertyNames": {"maxLength": 1}}, {"aa": 1}, "'propertyNames'"),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, "'dependentSchemas'"),
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"a": 1, "b": 2}, "does not fit the schema"),
        ({"patternProperties": {"^a/": {"type": "null"}}}, {"a/1": 2}, '/a/1: 2 is not of type "null"'),
        ({"patternProperties": {"^a": {}}, "additionalProperties": False}, {"a": 1, "b": 2}, "'b' was unexpected"),
        ({"prefixItems": [{"type": "null"}], "items": False}, [None, 2], "does not allow 2"),
        ({"$id": "https://a.example/b", "properties": {"a": {"$ref": "#/$defs/s"}}, "$defs": {"s": False}}, {"a": 1}, "/a: "),
        (False, 1, "False schema does not allow 1"),
    ],
    ids=str,
)
def test_the_first_fault_is_named_with_its_place(schema: Any, record: Any, said: str):
    schema = schema if isinstance(schema, dict) else {"allOf": [schema]}
    check_schema(schema)
    assert said in compile_schema(schema)(record)


def test_only_the_first_fault_is_named():
    assert ";" not in compile_schema({"required": ["a", "b", "c"]})({})


def test_a_search_that_would_take_too_long_names_the_last_place_that_it_found():
    schema = {"properties": {"a": {"properties": {f"p{i}": {"type": "string"} for i in range(300)}}}}
    record = {"a": dict.fromkeys([f"p{i}" for i in range(300)], 1)}
    assert compile_schema(schema)(record).startswith("/a/p")
    place, said = FaultFinder(schema, Weigher(schema), RegexOptions()).first_fault(record, most=2000)
    assert (place, said) == ([], "does not fit the schema")
