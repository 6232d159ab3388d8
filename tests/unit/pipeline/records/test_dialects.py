"""Schemas as people and their tools write them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.records.dialects import read_schema
from pipeline.records.schema import SchemaFault, check_schema, records_schema
from pipeline.records.validate import compile_schema

DRAFTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}
SHOP = {"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]}


def fits(schema: dict[str, Any], record: Any) -> bool:
    read = read_schema(schema)
    check_schema(read)
    check_schema(records_schema(read, json_mode=True)[0])
    return compile_schema(read)(record) == ""


@pytest.mark.parametrize(
    "dialect",
    [
        *DRAFTS.values(),
        "http://json-schema.org/draft-07/schema",
        "https://json-schema.org/schema",
        "http://json-schema.org/schema#",
    ],
)
def test_a_schema_may_name_any_dialect_since_draft_04(dialect):
    schema = {"$schema": dialect, **SHOP}
    assert fits(schema, {"shop": "Teahouse"})
    assert not fits(schema, {"shop": 3})


def test_the_dialect_of_openapi_3_1_is_that_of_2020_12():
    assert fits({"$schema": "https://spec.openapis.org/oas/3.1/dialect/base", **SHOP}, {"shop": "Teahouse"})


@pytest.mark.parametrize("dialect", ["http://json-schema.org/draft-03/schema#", "https://example.com/mine", 7, None])
def test_another_dialect_is_refused_with_those_that_are_taken(dialect):
    with pytest.raises(SchemaFault, match="draft-04, 06, 07, 2019-09 or 2020-12"):
        read_schema({"$schema": dialect, **SHOP})


PAIR = {"type": "array", "items": [{"type": "string"}, {"type": "number"}], "additionalItems": False}
HIDING = {"definitions": {"name": {"type": "string"}}, "properties": {"a": {"$ref": "#/definitions/name", "maxLength": 1}}}
CARD = {"type": "object", "dependencies": {"card": ["expires"], "iban": {"required": ["bank"]}}}
POSITIVE = {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False}


@pytest.mark.parametrize(
    ("schema", "drafts", "record", "fitting"),
    [
        (PAIR, (4, 6, 7, 2019), ["a", 1], True),
        (PAIR, (4, 6, 7, 2019), [1, "a"], False),
        (PAIR, (4, 6, 7, 2019), ["a", 1, 1], False),
        ({"items": {"type": "string"}, "additionalItems": False}, (4, 6, 7, 2019), ["a", "b"], True),
        (HIDING, (4, 6, 7), {"a": "long"}, True),
        (HIDING, (2019, 2020), {"a": "long"}, False),
        (CARD, (4, 6, 7, 2019, 2020), {"card": 1}, False),
        (CARD, (4, 6, 7, 2019, 2020), {"card": 1, "expires": 2}, True),
        (CARD, (4, 6, 7, 2019, 2020), {"iban": 1}, False),
        (POSITIVE, (4, 2020), 0, False),
        (POSITIVE, (4, 2020), 9, True),
        (POSITIVE, (4, 2020), 9.1, False),
        ({"id": "http://a.example/b", "type": "object", "properties": {"id": {"type": "integer"}}}, (4,), {"id": "x"}, False),
        ({"$id": "#root", "properties": {"a": {"$id": "#/properties/a", "type": "string"}}}, (6, 7), {"a": 1}, False),
    ],
)
def test_a_word_is_read_as_its_dialect_means_it(schema, drafts, record, fitting):
    for draft in drafts:
        assert fits({"$schema": DRAFTS[draft], **schema}, record) is fitting, draft


def test_names_of_properties_are_not_taken_for_keywords():
    schema = {
        "$schema": DRAFTS[4],
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("id", "items", "type")},
    }
    schema["properties"] |= {"nullable": {"type": "boolean"}, "dependencies": {"type": "array"}, "required": {"type": "boolean"}}
    assert fits(schema, {"id": "a", "items": "b", "type": "c", "nullable": True, "dependencies": [], "required": True})
    assert not fits(schema, {"nullable": None})


REFERRED = {"$defs": {"money": {"type": "number", "minimum": 0}}}


@pytest.mark.parametrize(
    ("part", "good", "bad"),
    [
        ({"type": "number", "nullable": True}, 1, "1"),
        ({"type": ["number", "string"], "nullable": True}, 1, []),
        ({"type": "string", "enum": ["EUR", "USD"], "nullable": True}, "EUR", "GBP"),
        ({"type": "string", "enum": ["EUR", None], "nullable": True, "description": "the currency"}, "EUR", "GBP"),
        ({"$ref": "#/$defs/money", "nullable": True}, 1, -1),
        ({"allOf": [{"$ref": "#/$defs/money"}], "nullable": True}, 1, -1),
        ({"anyOf": [{"type": "number"}, {"type": "string"}], "nullable": True}, "a", []),
        ({"type": "object", "nullable": True, "properties": {"a": {"type": "string"}}}, {"a": "b"}, {"a": 1}),
        (
            {"type": "string", "nullable": True, "example": "tea", "xml": {"name": "t"}, "discriminator": {"propertyName": "a"}},
            "a",
            1,
        ),
    ],
)
def test_what_openapi_calls_nullable_may_be_null(part, good, bad):
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"], **REFERRED}
    assert fits(schema, {"a": None})
    assert fits(schema, {"a": good})
    assert not fits(schema, {"a": bad})
    assert not fits({**schema, "properties": {"a": {**part, "nullable": False}}}, {"a": bad})


def test_a_nullable_record_keeps_its_definitions():
    assert fits({"$ref": "#/$defs/money", "nullable": True, **REFERRED}, None)


@pytest.mark.parametrize(
    "sent",
    [
        {"name": "receipt", "strict": True, "schema": SHOP},
        {"name": "receipt", "description": "a receipt", "schema": SHOP},
        {"schema": SHOP},
        {"type": "json_schema", "json_schema": {"name": "receipt", "strict": True, "schema": SHOP}},
        {"type": "json_schema", "name": "receipt", "strict": True, "schema": SHOP},
        {"json_schema": {"name": "receipt", "schema": SHOP}},
    ],
)
def test_the_wrapper_of_openai_is_removed(sent):
    assert read_schema(sent) == SHOP


@pytest.mark.parametrize("name", ["schema", "json_schema", "name"])
def test_a_record_with_a_member_called_like_the_wrapper_keeps_it(name):
    schema = {"type": "object", "properties": {name: {"type": "object"}}}
    assert read_schema(schema) == schema


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({}, 'it is empty. Write {"type": "object", "properties": {"shop"'),
        ({"shop": "string"}, 'Write {"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]}'),
        ({"total": "float", "shop": "string"}, 'Write {"type": "object", "properties": {"total": {"type": "number"}}'),
        ({"title": "string", "description": "a receipt"}, "no keyword of JSON Schema"),
        ({"$schema": DRAFTS[7]}, "it is empty"),
        ({"type": "float"}, '/type is "float", which is no type of JSON Schema; did you mean "number"?'),
        (
            {"properties": {"a": {"type": "int"}}},
            '/properties/a/type is "int", which is no type of JSON Schema; did you mean "integer"?',
        ),
        ({"items": {"type": ["str", "null"]}}, 'did you mean "string"?'),
        ({"type": "OBJECT"}, 'did you mean "object"?'),
        ({"type": "bool"}, 'did you mean "boolean"?'),
        ({"type": "list"}, 'did you mean "array"?'),
        ({"type": "dict"}, 'did you mean "object"?'),
        ({"type": "nubmer"}, 'did you mean "number"?'),
        ({"type": "zzz"}, "the types are string, number, integer, boolean, array, object, null."),
        ({"properties": {"shop": "string"}}, '/properties/shop is "string", where a schema must be; write {"type": "string"}.'),
        ({"properties": {"a": {"type": "string", "required": True}}}, "/properties/a/required must be an array"),
    ],
    ids=str,
)
def test_a_mistake_is_named_with_its_place_and_how_to_mend_it(schema, said):
    with pytest.raises(SchemaFault) as refused:
        read_schema(schema)
    assert said in str(refused.value)
