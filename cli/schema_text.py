"""Reads a schema from a file, from JSON, or from the shorthand `shop, date, total number`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.records.schema import SchemaFault, check_schema

#: Word at the end of a field of the shorthand → what its value must be. Null says that the picture does not show it.
TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": ["string", "null"]},
    "number": {"type": ["number", "null"]},
    "integer": {"type": ["integer", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "date": {"type": ["string", "null"], "format": "date", "description": "YYYY-MM-DD"},
    "list": {"type": "array", "items": {"type": "string"}},
}
SHORTHAND = "Write fields with commas between, each a name and a type if it is not text: shop, date, total number."


class SchemaTextFault(ValueError):
    """The text is no schema that can be used. The message says why and what to write instead."""


def read_schema(text: str) -> dict[str, Any]:
    """The schema that `text` names or is. Raises SchemaTextFault."""
    text = text.strip()
    if text.startswith("{"):
        return _checked(_parsed(text, "The schema"), "The schema")
    path = Path(text)
    if text.endswith(".json") or (len(text) < 1000 and os.path.exists(text)):  # noqa: PTH110 - a name that is no path is no error
        try:
            return _checked(_parsed(path.read_text(encoding="utf-8-sig"), text), text)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise SchemaTextFault(f"The schema file {text} can't be read: {reason}.") from None
    return shorthand(text)


def shorthand(text: str) -> dict[str, Any]:
    """The JSON Schema of the shorthand. Each field is required, and null where a picture does not show it."""
    properties: dict[str, Any] = {}
    for number, field in enumerate(text.split(","), 1):
        words = field.split()
        if not words:
            raise SchemaTextFault(f"Field {number} of the schema is empty. {SHORTHAND}")
        name, kind = _field(words)
        if name in properties:
            raise SchemaTextFault(f"The schema has the field {name} twice. {SHORTHAND}")
        properties[name] = dict(TYPES[kind])
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return _checked(schema, "The schema")


def _field(words: list[str]) -> tuple[str, str]:
    last = words[-1].lower()
    if len(words) == 1:
        # A field that is only called `date` holds a date. Other types alone are names, such as `number`.
        return words[0], "date" if last == "date" else "text"
    if last in TYPES:
        return " ".join(words[:-1]), last
    if any(mark in words[-1] for mark in "(){}[]<>:|"):
        raise SchemaTextFault(f"“{' '.join(words)}” is no field. The types are {', '.join(TYPES)}. {SHORTHAND}")
    return " ".join(words), "text"


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SchemaTextFault(f"{what} is not JSON: {error}.") from None


def _checked(schema: Any, what: str) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise SchemaTextFault(f"{what} must be a JSON object, the JSON Schema of one image's record.")
    try:
        check_schema(schema)
    except SchemaFault as fault:
        raise SchemaTextFault(f"{what} can't be used: {fault}") from None
    return schema
