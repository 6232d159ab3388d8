"""The JSON Schema of one image's record: the check of a request's schema, and its conversion for a model. Pure.

A schema is JSON Schema 2020-12 that can be validated in bounded time and without outside references. Older dialects are translated
before (`pipeline/records/dialects.py`). A model accepts fewer keywords (see KEPT). If the conversion loses some, the model also gets the whole schema as text. pipeline/records/validate.py
validates records against the whole schema.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_CHARACTERS = 32_768  #: bytes as compact JSON; it is limited because it is sent with each call
DEEPEST = 64  #: levels of JSON
MOST_PARTS = 2_000  #: subschemas, each counted as often as a $ref leads to it; the limit bounds the time of validation
PATTERN_PARTS = 40  #: how many subschemas a pattern counts as, because the slowest patterns take microseconds a character

#: Keywords by what they hold: ONE holds a subschema, LIST an array of subschemas, MAP an object of subschemas.
ONE = frozenset(
    {"additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else", "contentSchema"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
MAP = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
REFUSED = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary")

#: Keywords that Gemini accepts: https://ai.google.dev/gemini-api/docs/structured-output
#: minItems and maxItems are left out, because Gemini refuses them if they are large ("too many states").
KEPT = ("type", "title", "description", "format", "minimum", "maximum", "required")
#: Keywords that are left out without telling the model, because they do not change what is valid.
SILENT = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "default", "examples", "deprecated", "readOnly"}
    | {"writeOnly", "example", "xml", "externalDocs", "discriminator"}  # the last four are OpenAPI's
)


LONGEST_FAULT = 240  #: characters; longer texts are cut, because names in a schema may have any length


class SchemaFault(ValueError):
    """The schema can't be used. The text says where and why."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST_FAULT else f"{text[:LONGEST_FAULT]}…"


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises SchemaFault if the schema is too large, has outside or circular references, or is of another dialect."""
    check_depth(schema)
    try:
        size = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        raise SchemaFault("it holds characters that are no Unicode text.") from None
    if size > MOST_CHARACTERS:
        raise SchemaFault(f"it has {size} bytes, at most {MOST_CHARACTERS} are taken.")
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise SchemaFault(f"$schema names another dialect than {DIALECT}; leave it out, or name this one.")
    _Walk(schema).parts(schema, "#", ())


def check_depth(schema: Any) -> None:
    """Raises SchemaFault if the schema is nested too deeply."""
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise SchemaFault(f"it is nested more than {DEEPEST} levels deep.")
        inner = [value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)]
        level = [value for values in inner for value in values]


@dataclass(frozen=True, slots=True)
class _Walk:
    """Counts the subschemas of a schema, following each $ref, and refuses circular references."""

    root: Mapping[str, Any]
    known: dict[int, int] = field(default_factory=dict)  #: by `id()` of a subschema: how many subschemas it counts as

    def parts(self, schema: Any, at: str, above: tuple[int, ...]) -> int:
        """How many subschemas `schema` counts as. A subschema counts each time that a $ref leads to it.

        `at`: where it is in the schema, for errors. `above`: the `id()` of each subschema that it is in.
        """
        if not isinstance(schema, dict):
            return 1
        if id(schema) in above:
            raise SchemaFault(f"{at} leads back to what it is in; write out the levels that you need.")
        if len(above) > DEEPEST:
            raise SchemaFault(f"{at} is more than {DEEPEST} subschemas deep.")
        if id(schema) in self.known:
            return self.known[id(schema)]
        for name in REFUSED:
            if name in schema:
                raise SchemaFault(f"{at} has {name}, which is not taken here.")
        if "$id" in schema and above:
            raise SchemaFault(f"{at} has an $id; only the whole schema may.")
        inner = (*above, id(schema))
        properties = schema.get("patternProperties")
        patterns = ("pattern" in schema) + (len(properties) if isinstance(properties, dict) else 0)
        count = 1 + patterns * PATTERN_PARTS
        for name, part in subschemas(schema):
            count += self.parts(part, f"{at}/{name}", inner)
        if "$ref" in schema:
            count += self.parts(resolve(self.root, schema["$ref"], at), f"{at}/$ref", inner)
        self._check(count)
        self.known[id(schema)] = count
        return count

    def _check(self, count: int) -> None:
        if count > MOST_PARTS:
            text = f"it has more than {MOST_PARTS} subschemas, each counted as often as a $ref leads to it, and each pattern as"
            raise SchemaFault(f"{text} {PATTERN_PARTS}.")


def subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the direct subschemas of a schema, each with its relative path."""
    for name, value in schema.items():
        if name in ONE:
            yield name, value
        elif name in LIST and isinstance(value, list):
            yield from ((f"{name}/{place}", part) for place, part in enumerate(value))
        elif name in MAP and isinstance(value, dict):
            yield from ((f"{name}/{key}", part) for key, part in value.items())


def resolve(root: Mapping[str, Any], ref: Any, at: str) -> Any:
    """The subschema that the reference `#/…` points to. Raises SchemaFault."""
    if not isinstance(ref, str) or (ref != "#" and not ref.startswith("#/")):
        shown = f'"{ref[:100]}"' if isinstance(ref, str) else "no text"
        raise SchemaFault(f"the $ref of {at} is {shown}; only a path within the schema is followed, such as #/$defs/name.")
    found: Any = root
    for part in unquote(ref[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise SchemaFault(f"the $ref of {at} leads to {ref[:100]}, which is not there.")
    return found


def records_schema(schema: Mapping[str, Any] | None, *, json_mode: bool) -> tuple[dict[str, Any], str]:
    """The JSON Schema of a call that asks for records, and a text for the model (empty if none is needed).

    The JSON Schema is an array of `{"index", "result"}` of any length. `schema` is the request's schema for each result. The text
    holds this schema if the model does not accept all of its keywords.
    """
    shown: dict[str, Any] = {"type": "object", "additionalProperties": True} if json_mode else {"type": "string"}
    words, named = "", dict[str, Any]()
    if schema is not None:
        model = _ForModel(schema)
        shown, named = model.whole()
        if model.lost:
            text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
            words = f"Each 'result' must be valid against this JSON Schema:\n{text}"
    record = {
        "type": "object",
        "properties": {"index": {"type": "integer"}, "result": shown},
        "required": ["index", "result"],
    }
    return {"type": "array", "items": record, **({"$defs": named} if named else {})}, words


class _ForModel:
    """Converts a schema to the keywords that a model accepts. The target of each $ref gets an entry of its own in `$defs`."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.lost = False  #: a keyword was left out that changes what is valid
        self._root = root
        self._names: dict[str, str] = {}  #: by $ref: the name of its entry in `$defs`
        self._waiting: deque[str] = deque()  #: each $ref whose target is not converted yet

    def whole(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The converted schema, and the entries of its `$defs`."""
        shown = self._shown(self._root)
        named: dict[str, Any] = {}
        while self._waiting:
            ref = self._waiting.popleft()
            named[self._names[ref]] = self._shown(resolve(self._root, ref, ""))
        return shown, named

    def _shown(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):  # true or false
            self.lost |= schema is False
            return {}
        if "$ref" in schema:  # the model accepts no other keyword beside a $ref
            self.lost |= bool(set(schema) - SILENT - {"$ref", "title", "description"})
            return {"$ref": f"#/$defs/{self._name(schema['$ref'])}"}
        shown: dict[str, Any] = {}
        for name, value in schema.items():
            self._keep(shown, name, value)
        return shown

    def _keep(self, shown: dict[str, Any], name: str, value: Any) -> None:
        if name in KEPT:
            shown[name] = value
        elif name in ("enum", "const"):
            values = value if name == "enum" else [value]
            if all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
                shown["enum"] = values
            else:
                self.lost = True
        elif name == "properties":
            shown[name] = {key: self._shown(part) for key, part in value.items()}
        elif name in ("anyOf", "oneOf", "prefixItems"):
            shown[name] = [self._shown(part) for part in value]
        elif name in ("items", "additionalProperties"):
            shown[name] = value if isinstance(value, bool) and name == "additionalProperties" else self._shown(value)
        elif name not in SILENT:
            self.lost = True

    def _name(self, ref: str) -> str:
        if ref not in self._names:
            self._names[ref] = f"part{len(self._names) + 1}"
            self._waiting.append(ref)
        return self._names[ref]
