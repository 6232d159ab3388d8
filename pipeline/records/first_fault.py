"""Finds the first fault of a record that does not fit its schema.

The validator itself builds an error for each branch of an `anyOf`, and in it one for each value, with a copy of the value: a schema
of 30 kB and 2,000 integers made 6 GB of errors. So this module only asks whether a subschema accepts a value, which builds nothing.
It goes from the whole record into the first part that does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from jsonschema_rs import Draft202012, Draft202012Validator, RegexOptions, Registry, ValidationError

from pipeline.numbers import write_json
from pipeline.records.cost import Weigher, size_of
from pipeline.records.schema import LIST, MAP, ONE, resolve

_ROOT = "urn:schema"
_DESCENTS = 3  #: the search may cost this many times what the whole check may cost
_COMPILING = 2_500  #: units for compiling a small subschema
#: What is said of the keywords whose subschemas are not searched.
_SAID = {
    "anyOf": "is not valid under any of the schemas listed in the 'anyOf' keyword",
    "oneOf": "is not valid under exactly one of the schemas listed in the 'oneOf' keyword",
    "not": "is what the 'not' keyword forbids",
    "if": "does not fit the 'then' or 'else' that goes with its 'if'",
    "contains": "does not hold as many items as its 'contains' asks for",
    "propertyNames": "has a name that its 'propertyNames' forbids",
    "dependentSchemas": "does not fit its 'dependentSchemas'",
}
_BESIDE = {"if": ("then", "else"), "contains": ("minContains", "maxContains")}  #: keywords that belong to another one
_DOES_NOT_FIT = "does not fit the schema"

_Step = tuple[Any, str, Any, tuple[str | int, ...]]  #: a subschema, its pointer, the value it judges, and where that value is


class FaultFinder:
    """Says what is wrong with records of one schema. `schema` has passed `check_schema`, and its patterns can be compiled."""

    def __init__(self, schema: Mapping[str, Any], weigher: Weigher, patterns: RegexOptions) -> None:
        self._root = {name: value for name, value in schema.items() if name not in ("$id", "$schema")}
        self._weigher = weigher
        self._patterns = patterns
        self._registry = Registry([(_ROOT, self._root)], draft=Draft202012)

    def first_fault(self, record: Any, *, most: int) -> tuple[list[str | int], str]:
        """Where the first fault of a record that does not fit is, and what it is. The search takes at most about 3 * `most` units.

        If the search would take longer, it names the last place that it found.
        """
        left = _DESCENTS * most
        compiled = dict[str, Draft202012Validator]()  # by pointer
        schema, pointer, value, place = self._root, "", record, list[str | int]()
        while True:
            if said := self._own_fault(schema, value):
                return place, said
            for part, part_pointer, part_value, where in self._parts(schema, pointer, value):
                left -= self._weigher.weigh(part).cost(size_of(part_value))
                if part_pointer not in compiled:
                    left -= _COMPILING
                    compiled[part_pointer] = self._validator({"$ref": f"{_ROOT}#{part_pointer}"})
                if left < 0:
                    return place, _DOES_NOT_FIT
                if not compiled[part_pointer].is_valid(part_value):
                    schema, pointer, value = part, part_pointer, part_value
                    place += where
                    break
            else:
                return place, self._said_of_whole(schema, pointer, value)

    def _validator(self, schema: Any) -> Draft202012Validator:
        return Draft202012Validator(
            schema, registry=self._registry, pattern_options=self._patterns, validate_formats=False, offline=True
        )

    def _own_fault(self, schema: Any, value: Any) -> str:
        """What a schema's own keywords find wrong with a value. They are those without a subschema that needs a search."""
        if not isinstance(schema, Mapping):
            return "" if schema else f"False schema does not allow {_shown(value)}"
        held = {*ONE, *LIST, *MAP, "$ref", *_BESIDE["contains"]}
        own = {name: keyword for name, keyword in schema.items() if name not in held}
        if schema.get("additionalProperties") is False:
            names = {name: dict.fromkeys(schema[name], True) for name in ("properties", "patternProperties") if name in schema}
            own |= {"additionalProperties": False, **names}
        if schema.get("items") is False:
            own |= {"items": False, **({"prefixItems": [True] * len(schema["prefixItems"])} if "prefixItems" in schema else {})}
        try:
            self._validator(own).validate(value)
        except ValidationError as error:
            return str(error.message)
        return ""

    def _parts(self, schema: Any, pointer: str, value: Any) -> Iterator[_Step]:
        """Yields the subschemas that have to accept the value, or a part of it, each on its own."""
        if not isinstance(schema, Mapping):
            return
        if "$ref" in schema:
            ref = schema["$ref"]
            yield resolve(self._root, ref, ""), ref[1:], value, ()
        for place, part in enumerate(schema.get("allOf", ())):
            yield part, f"{pointer}/allOf/{place}", value, ()
        if isinstance(value, Mapping):
            yield from self._members(schema, pointer, value)
        elif isinstance(value, list):
            before = schema.get("prefixItems", [])
            for place, (part, item) in enumerate(zip(before, value, strict=False)):
                yield part, f"{pointer}/prefixItems/{place}", item, (place,)
            if "items" in schema:
                for place, item in enumerate(value[len(before) :], len(before)):
                    yield schema["items"], f"{pointer}/items", item, (place,)

    def _members(self, schema: Mapping[str, Any], pointer: str, value: Mapping[str, Any]) -> Iterator[_Step]:
        properties = schema.get("properties", {})
        for name in properties.keys() & value.keys():
            yield properties[name], f"{pointer}/properties/{_quoted(name)}", value[name], (name,)
        named = set(properties)
        for pattern, part in schema.get("patternProperties", {}).items():
            fits = self._validator({"pattern": pattern})
            for name in filter(fits.is_valid, value):
                named.add(name)
                yield part, f"{pointer}/patternProperties/{_quoted(pattern)}", value[name], (name,)
        if "additionalProperties" in schema:
            for name in value.keys() - named:
                yield schema["additionalProperties"], f"{pointer}/additionalProperties", value[name], (name,)

    def _said_of_whole(self, schema: Any, pointer: str, value: Any) -> str:
        """What is wrong with a value all of whose parts fit by themselves."""
        for name, said in _SAID.items():
            if name not in schema:
                continue
            keyword = {name: _referring(schema[name], f"{pointer}/{name}")}
            for other in _BESIDE.get(name, ()):
                if other in schema:
                    held = schema[other]
                    keyword[other] = held if name == "contains" else _referring(held, f"{pointer}/{other}")
            if not self._validator(keyword).is_valid(value):
                return f"{_shown(value)} {said}"
        return f"{_shown(value)} {_DOES_NOT_FIT}"


def _referring(held: Any, pointer: str) -> Any:
    """The subschemas of a keyword as references to where they are, so that the references in them still lead somewhere."""
    if isinstance(held, list):
        return [{"$ref": f"{_ROOT}#{pointer}/{place}"} for place in range(len(held))]
    if pointer.endswith("/dependentSchemas"):
        return {name: {"$ref": f"{_ROOT}#{pointer}/{_quoted(name)}"} for name in held}
    return {"$ref": f"{_ROOT}#{pointer}"}


def _quoted(name: str) -> str:
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~")


def _shown(value: Any) -> str:
    return write_json(value, ensure_ascii=False, separators=(",", ":"))
