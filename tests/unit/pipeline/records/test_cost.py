from __future__ import annotations

from typing import Any

import pytest

from pipeline.records.cost import Weigher, size_of
from pipeline.records.schema import check_schema
from pipeline.records.validate import MOST_HERE

NULL: dict[str, Any] = {"type": "null"}


def nested(depth: int, **keywords: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"properties": {"a": {}}}
    for _ in range(depth):
        schema = {**keywords, "anyOf": [schema, True]}
    return schema


def cost(schema: Any, record: Any) -> int:
    check_schema(schema)
    return Weigher(schema).weigh(schema).cost(size_of(record))


#: Each took the validator 0.1 s to minutes in this process.
HOSTILE: dict[str, tuple[Any, Any]] = {
    "many branches": ({"items": {"anyOf": [NULL] * 1900}}, list(range(2000))),
    "the last of many branches": ({"items": {"oneOf": [NULL] * 1900 + [True]}}, list(range(2000))),
    "branches over branches": ({"allOf": [{"anyOf": [{"items": {"oneOf": [NULL] * 900}}]}] * 2}, list(range(2000))),
    "contains in contains": ({"anyOf": [{"contains": {"contains": NULL}}] * 600 + [True]}, [list(range(100))] * 200),
    "an enum as often as a $ref leads to it": (
        {"$defs": {"e": {"enum": [[i] for i in range(1500)]}}, "items": {"anyOf": [{"$ref": "#/$defs/e"}] * 600 + [True]}},
        [[-1]] * 20,
    ),
    "an enum of fractions": (
        {"$defs": {"e": {"enum": [i + 0.5 for i in range(2000)]}}, "items": {"anyOf": [{"$ref": "#/$defs/e"}] * 600 + [True]}},
        [-1.5] * 100,
    ),
    "unique items": ({"items": {"anyOf": [{"uniqueItems": True, "not": True}] * 900 + [True]}}, [list(range(10))] * 500),
    "unevaluated in unevaluated": (nested(14, unevaluatedProperties=NULL), {f"k{i}": None for i in range(30)}),
    "a pattern of many states": ({"pattern": "(a|b)*a(a|b){300}c"}, "ab" * 10_000),
    "many names by pattern": (
        {"patternProperties": {f"(a|b)*{i}": NULL for i in range(45)}},
        dict.fromkeys(map(str, range(2000))),
    ),
    "many dependent schemas": (
        {"items": {"dependentSchemas": {f"k{i}": {"not": {"required": ["z"]}} for i in range(900)}}},
        [{f"k{i}": None for i in range(900)}] * 20,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_check_that_takes_long_costs_more_than_is_checked_in_this_process(case: str):
    assert cost(*HOSTILE[case]) > MOST_HERE


RECEIPT = {
    "type": "object",
    "properties": {
        "date": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "lines": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/line"}},
    },
    "additionalProperties": False,
    "$defs": {"line": {"properties": {"text": {"type": "string"}, "price": {"type": ["number", "null"]}}, "required": ["text"]}},
}


def test_the_records_of_a_whole_call_of_receipts_are_checked_in_this_process():
    receipt = {"date": "2026-01-02", "currency": "EUR", "lines": [{"text": "tea and cake", "price": 3.5}] * 40}
    assert cost({"type": "array", "items": RECEIPT["properties"], **RECEIPT}, [receipt] * 20) < MOST_HERE


def test_a_subschema_weighs_as_often_as_a_ref_leads_to_it_and_nothing_if_none_does():
    once = {"$defs": {"a": {"properties": {f"p{i}": NULL for i in range(100)}}}, "allOf": [{"$ref": "#/$defs/a"}]}
    unused = {**once, "allOf": [{}]}
    twice = {**once, "allOf": [{"$ref": "#/$defs/a"}] * 2}
    weights = [Weigher(schema).weigh(schema).a_value for schema in (unused, once, twice)]
    assert weights[1] - weights[0] > 100
    assert weights[2] - weights[1] > 100
