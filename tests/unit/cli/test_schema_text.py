"""The short form of a schema, and schemas in files."""

from __future__ import annotations

import json

import pytest

from cli.schema_text import SchemaTextFault, read_schema


def test_a_field_is_a_name_and_a_type():
    schema = read_schema("shop, invoice date date, total number, pages integer, paid boolean, items list, name text")
    kinds = {name: part["type"] for name, part in schema["properties"].items()}
    assert kinds == {
        "shop": ["string", "null"],
        "invoice date": ["string", "null"],
        "total": ["number", "null"],
        "pages": ["integer", "null"],
        "paid": ["boolean", "null"],
        "items": "array",
        "name": ["string", "null"],
    }
    assert schema["properties"]["invoice date"]["format"] == "date"
    assert schema["required"] == list(kinds)


def test_a_field_that_is_only_called_date_is_one():
    schema = read_schema("shop, date, number")
    assert schema["properties"]["date"]["format"] == "date"
    assert schema["properties"]["number"]["type"] == ["string", "null"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shop,,total", "Field 2 of the schema is empty"),
        ("shop, shop number", "twice"),
        ("total (number)", "is no field"),
        ("", "Field 1"),
        ("{", "not JSON"),
        ('{"$ref": "https://elsewhere.example"}', "can't be used"),
        ("none.json", "can't be read"),
    ],
)
def test_a_schema_that_can_t_be_used_says_why(text, message):
    with pytest.raises(SchemaTextFault, match=message):
        read_schema(text)


def test_a_schema_comes_from_a_file_or_as_json(tmp_path):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    assert read_schema(str(tmp_path / "schema.json")) == schema
    assert read_schema(json.dumps(schema)) == schema
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SchemaTextFault, match="must be a JSON object"):
        read_schema(str(tmp_path / "list.json"))
