"""Estimates how much work it is to check a record against a schema. Pure.

The unit is the time that the validator takes to compare the type of one value, about 10 ns. The factors below were measured with
jsonschema-rs 0.60. An estimate may be too high, but never much too low: it decides whether a record is checked in this process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.records.schema import resolve, subschemas

EQUAL = 2  #: units for comparing a value with one text, integer, boolean or null of an enum
EQUAL_OTHER = 20  #: the same for each value inside of an object, an array or a fraction
UNIQUE = 50  #: units for finding out whether an item is in its array twice
UNEVALUATED = 3  #: how often an unevaluated… keyword has the subschemas beside it checked, and the ones in them again
CHARACTERS = 16  #: so many characters of a text count as one more value
STATE = 2  #: units for each character and each state of a pattern that needs many states at once
_COUNTS = re.compile(r"\{(\d*),?(\d*)\}")
_OPEN_ENDED = re.compile(r"[*+]|\{\d+,\}")
_BESIDE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """The work of checking one value against a schema, in units."""

    a_value: int  #: for each value in the record
    a_character: int  #: for each character of the record's texts

    def cost(self, size: Size) -> int:
        """The work of checking a record of that size, in units. No check takes more, whichever subschemas meet which values."""
        return self.a_value * size.values + self.a_character * size.characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The size of a record."""

    values: int  #: values at any depth, with long texts counted as several
    characters: int  #: characters of all texts and names


@dataclass(frozen=True, slots=True)
class Weigher:
    """Weighs the subschemas of a schema, each once. The schema must have passed `check_schema`."""

    root: Mapping[str, Any]
    _known: dict[int, Weight] = field(default_factory=dict)  #: by `id()` of a subschema

    def weigh(self, schema: Any) -> Weight:
        """The weight of a subschema. It counts each subschema as often as a $ref leads to it."""
        if not isinstance(schema, Mapping):
            return Weight(a_value=1, a_character=0)
        if (known := self._known.get(id(schema))) is not None:
            return known
        values, characters = _own(schema)
        again = UNEVALUATED if "unevaluatedItems" in schema or "unevaluatedProperties" in schema else 1
        for name, part in subschemas(schema):
            if name.startswith(("$defs/", "definitions/")):
                continue  # it counts where a $ref leads to it
            inner = self.weigh(part)
            times = again if name.partition("/")[0] in _BESIDE else 1
            values, characters = values + times * inner.a_value, characters + times * inner.a_character
        if "$ref" in schema:
            inner = self.weigh(resolve(self.root, schema["$ref"], "#"))
            values, characters = values + again * inner.a_value, characters + again * inner.a_character
        weight = self._known[id(schema)] = Weight(a_value=values, a_character=characters)
        return weight


def _own(schema: Mapping[str, Any]) -> tuple[int, int]:
    """The units of a schema's own keywords, for each value and for each character."""
    values, characters = 1 + len(schema), 0
    if isinstance(choices := schema.get("enum"), list):
        values += sum(EQUAL if _is_plain(choice) else EQUAL_OTHER * size_of(choice).values for choice in choices)
    if "const" in schema:
        values += EQUAL_OTHER * size_of(schema["const"]).values
    if isinstance(names := schema.get("required"), list):
        values += len(names)
    if isinstance(needs := schema.get("dependentRequired"), dict):
        values += sum(len(names) for names in needs.values() if isinstance(names, list))
    if schema.get("uniqueItems"):
        values += UNIQUE
    patterns = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    if isinstance(by_pattern := schema.get("patternProperties"), dict):
        patterns += by_pattern
    for pattern in patterns:
        values += 40
        characters += _states(pattern)
    return values, characters


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int)


def _states(pattern: str) -> int:
    """The units that a pattern takes for each character of a text."""
    if pattern.startswith("^") and not _OPEN_ENDED.search(pattern):
        return 1
    counts = sum(int(found[2] or found[1] or 0) for found in _COUNTS.finditer(pattern))
    return STATE * (len(pattern) + 8 * counts)


def size_of(record: Any) -> Size:
    """The size of a record."""
    values = characters = 0
    waiting = [record]
    while waiting:
        value = waiting.pop()
        values += 1
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, Mapping):
            characters += sum(map(len, value))
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return Size(values=values + characters // CHARACTERS, characters=characters)
