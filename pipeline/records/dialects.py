"""Reads the schema of a request, as people and their tools write it, into JSON Schema 2020-12. Pure.

The rest of the service knows only this dialect. Older drafts are translated where a word of theirs means something else today
(docs/adr/0028). OpenAPI's `nullable` becomes the type null. The wrapper that OpenAI's API takes is removed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.records.schema import DIALECT, LIST, MAP, ONE, SchemaFault, check_depth

TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
#: Words for types in other languages → the type of JSON Schema.
_TYPE_WORDS = {
    **dict.fromkeys(("float", "double", "decimal", "real", "money", "currency", "numeric", "float32", "float64"), "number"),
    **dict.fromkeys(("int", "long", "int32", "int64", "bigint", "short"), "integer"),
    **dict.fromkeys(("str", "text", "date", "datetime", "date-time", "time", "email", "url", "uri", "uuid", "char"), "string"),
    **dict.fromkeys(("bool", "flag"), "boolean"),
    **dict.fromkeys(("list", "tuple", "set"), "array"),
    **dict.fromkeys(("dict", "map", "json", "struct", "record", "any"), "object"),
    **dict.fromkeys(("none", "nil", "undefined"), "null"),
}

_DRAFT = re.compile(r"https?://json-schema\.org/draft(?:-0?|/)([\w-]+)/(?:hyper-)?schema#?")
_DRAFTS = {"4": 4, "6": 6, "7": 7, "2019-09": 2019, "2020-12": 2020}
_LAST_HIDING = 7  #: the last draft in which a `$ref` hides the keywords beside it
_NOW = 2020  #: the dialect that the rest of the service knows
_DRAFT_07 = "http://json-schema.org/draft-07/schema#"
_NEWEST = re.compile(r"https?://json-schema\.org/schema#?|https://spec\.openapis\.org/oas/3\.\d+/dialect/.*")

#: Keywords that only describe. A `$ref` of the drafts up to 7 hides every other keyword beside it.
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "xml", "externalDocs"}
    | {"discriminator", "$comment"}
)
_FRAME = frozenset({"$schema", "$id", "$anchor", "$defs", "definitions"})
#: Keywords that say what is valid. A schema that has none of them accepts everything.
_ASSERTIONS = frozenset(
    {*ONE, *LIST, *MAP, "type", "enum", "const", "$ref", "required", "dependentRequired", "pattern", "format"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}
    | {"minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"}
    # `check_schema` refuses these, and says why.
    | {"$dynamicRef", "$recursiveRef"}
) - {"$defs", "definitions", "contentSchema"}
_COMPOSED = frozenset({"enum", "const", "$ref", "allOf", "anyOf", "oneOf", "not", "if"})

_WRAPPER = frozenset({"name", "strict", "schema", "description", "type"})


def read_schema(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema 2020-12 that `sent` means. Raises SchemaFault, whose text says where and how to mend it.

    The result has still to pass `check_schema`.
    """
    schema = _unwrapped(sent)
    check_depth(schema)
    draft = _draft(schema.get("$schema", DIALECT))
    read: dict[str, Any] = _Reader(draft).read(schema, "")
    if not _ASSERTIONS & set(read):
        raise SchemaFault(_how_to_write(read))
    read.pop("$schema", None)
    return read


def _unwrapped(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in `{name, strict, schema}` or `{"type": "json_schema", "json_schema": {…}}`, the wrapper of OpenAI's API.

    None of these words is a keyword of JSON Schema, and `json_schema` is no type, so a wrapper is never a schema itself.
    """
    inner = sent.get("json_schema")
    if isinstance(inner, dict) and sent.get("type", "json_schema") == "json_schema" and set(sent) <= {"type", "json_schema"}:
        sent = inner
    inner = sent.get("schema")
    if isinstance(inner, dict) and set(sent) <= _WRAPPER and sent.get("type", "json_schema") == "json_schema":
        return dict(inner)
    return dict(sent)


def _draft(dialect: Any) -> int:
    if isinstance(dialect, str):
        named = _DRAFT.fullmatch(dialect.strip())
        if named and named[1] in _DRAFTS:
            return _DRAFTS[named[1]]
        if _NEWEST.fullmatch(dialect.strip()):
            return _NOW
    shown = json.dumps(dialect, ensure_ascii=False)[:80]
    raise SchemaFault(f"$schema is {shown}; it may name draft-04, 06, 07, 2019-09 or 2020-12 ({DIALECT}), or be left out.")


class _Reader:
    """Translates each subschema of a schema of one draft."""

    def __init__(self, draft: int) -> None:
        self._draft = draft

    def read(self, schema: Any, at: str) -> Any:
        """The subschema at the path `at`, in the words of 2020-12."""
        if not isinstance(schema, dict):
            _check_is_schema(schema, at)
            return schema
        _check_type(schema.get("type"), at)
        if isinstance(schema.get("required"), bool):
            raise SchemaFault(
                f"{at}/required must be an array with the names of required properties, in the object that has them."
            )
        read = {name: self._part(name, value, f"{at}/{name}") for name, value in schema.items()}
        if self._draft <= _LAST_HIDING:
            self._forget(read)
        if self._draft < _NOW:
            _rename_items(read)
        _rename_dependencies(read)
        for end in ("inimum", "aximum"):
            _move_exclusive(read, f"m{end}", f"exclusiveM{end}")
        return _with_null(read) if read.pop("nullable", None) is True else read

    def _part(self, name: str, value: Any, at: str) -> Any:
        if name in ("items", "additionalItems") and isinstance(value, list):
            if self._draft == _NOW:
                raise SchemaFault(f'{at} is an array; call it prefixItems, or name the older dialect: "$schema": "{_DRAFT_07}".')
            return [self.read(part, f"{at}/{place}") for place, part in enumerate(value)]
        if name in ONE or name == "additionalItems":
            return self.read(value, at)
        if name in LIST and isinstance(value, list):
            return [self.read(part, f"{at}/{place}") for place, part in enumerate(value)]
        if (name in MAP or name == "dependencies") and isinstance(value, dict):
            return {
                key: part if name == "dependencies" and isinstance(part, list) else self.read(part, f"{at}/{key}")
                for key, part in value.items()
            }
        return value

    def _forget(self, read: dict[str, Any]) -> None:
        """Removes what these drafts ignore beside a `$ref`, and names that are no base of a reference here."""
        if isinstance(read.get("id"), str) and self._draft == 4:
            del read["id"]
        if str(read.get("$id", "")).startswith("#"):  # tools write "#/properties/a", which is where the subschema is anyway
            del read["$id"]
        if isinstance(read.get("$ref"), str):
            for name in [name for name in read if name not in {*_ANNOTATIONS, *_FRAME, "$ref", "nullable"}]:
                del read[name]


def _check_is_schema(value: Any, at: str) -> None:
    """Refuses a text where a subschema must be. Other wrong values are left to the check against the dialect's own schema."""
    if isinstance(value, str):
        meant = _type_meant(value) or "string"
        raise SchemaFault(f'{at} is {_quoted(value)}, where a schema must be; write {{"type": "{meant}"}}.')


def _check_type(named: Any, at: str) -> None:
    for name in named if isinstance(named, list) else [named]:
        if isinstance(name, str) and name not in TYPES:
            meant = _type_meant(name)
            hint = f'did you mean "{meant}"?' if meant else f"the types are {', '.join(TYPES)}."
            raise SchemaFault(f"{at}/type is {_quoted(name)}, which is no type of JSON Schema; {hint}")


def _type_meant(word: str) -> str:
    """The type that a word of another language means, or the type that is spelt nearly so. Empty: none."""
    word = word.strip().lower()
    if word in TYPES:
        return word
    near = difflib.get_close_matches(word[:20], [*TYPES, *_TYPE_WORDS], n=1, cutoff=0.75)
    return (_TYPE_WORDS.get(near[0]) or near[0]) if near else ""


def _rename_items(read: dict[str, Any]) -> None:
    """`items` with an array is `prefixItems` today, and `additionalItems` beside it is `items`."""
    further = read.pop("additionalItems", None)
    if isinstance(read.get("items"), list):
        read["prefixItems"] = read.pop("items")
        if further is not None:
            read["items"] = further


def _rename_dependencies(read: dict[str, Any]) -> None:
    """`dependencies` is `dependentRequired` for its arrays, and `dependentSchemas` for its schemas."""
    given = read.get("dependencies")
    if not isinstance(given, dict):
        return
    del read["dependencies"]
    names = {key: value for key, value in given.items() if isinstance(value, list)}
    parts = {key: value for key, value in given.items() if not isinstance(value, list)}
    for keyword, found in (("dependentRequired", names), ("dependentSchemas", parts)):
        if found and isinstance(read.get(keyword, {}), dict):
            read[keyword] = {**read.get(keyword, {}), **found}


def _move_exclusive(read: dict[str, Any], bound: str, exclusive: str) -> None:
    """Draft-04 and OpenAPI 3.0 write `exclusiveMinimum: true` beside `minimum`. Today the keyword itself has the number."""
    if isinstance(read.get(exclusive), bool) and read.pop(exclusive) and bound in read:
        read[exclusive] = read.pop(bound)


def _with_null(read: dict[str, Any]) -> dict[str, Any]:
    """The schema, which accepts null too."""
    named = read.get("type")
    if not _COMPOSED & set(read):
        names = named if isinstance(named, list) else [named]
        return {**read, "type": [*names, "null"]} if named is not None and "null" not in names else read
    outer = {name: value for name, value in read.items() if name in _ANNOTATIONS | _FRAME}
    inner = {name: value for name, value in read.items() if name not in outer}
    values = inner.get("enum")
    if isinstance(values, list) and None in values and len(values) > 1:
        inner["enum"] = [value for value in values if value is not None]
    return {**outer, "anyOf": [inner, {"type": "null"}]}


def _how_to_write(read: Mapping[str, Any]) -> str:
    """What is wrong with a schema that accepts everything, and how its writer may have meant it."""
    words = [name for name in read if name not in _FRAME]
    name = words[0][:40] if words else "shop"
    value = read.get(words[0]) if words else None
    meant = (_type_meant(value) if isinstance(value, str) else "") or "string"
    example = {"type": "object", "properties": {name: {"type": meant}}, "required": [name]}
    has = f"none of its words ({_quoted(name)}) is one" if words else "it is empty"
    return f"it has no keyword of JSON Schema that says what is valid: {has}. Write {json.dumps(example, ensure_ascii=False)}."


def _quoted(text: str) -> str:
    return json.dumps(text[:40], ensure_ascii=False)
