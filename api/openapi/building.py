"""What the schemas of the OpenAPI document are built from."""

from __future__ import annotations

from typing import Any

from pipeline.types import JobStatus

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, what: str = "") -> Schema:
    """An object that must have all fields of `required`."""
    schema: Schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}
    return {**schema, "description": what} if what else schema


def text(what: str = "", **details: Any) -> Schema:
    return {"type": "string", **({"description": what} if what else {}), **details}


def number(what: str = "", **details: Any) -> Schema:
    """A whole number that is not negative."""
    return {"type": "integer", "minimum": 0, **({"description": what} if what else {}), **details}


def or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def several(items: Schema, what: str = "", **details: Any) -> Schema:
    return {"type": "array", "items": items, **({"description": what} if what else {}), **details}


NEXT: Schema = {"type": ["string", "null"], "description": "`cursor` of the next page; null on the last one."}
MONEY: Schema = {"type": "number", "minimum": 0, "description": "Dollars, by the prices in `MODELS`."}
EVENTS = [f"job.{status.value}" for status in JobStatus if status.ended]  #: the types of webhooks
TIME = text("RFC 3339, in UTC", format="date-time")
