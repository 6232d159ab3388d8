"""The leaves of a record, with what its schema says about them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evidence.letters import fold
from pipeline.evidence.words import NAMES

#: Values of these fields are judgements about a picture and not texts of it, so one that is not found is no fault. Folded.
_JUDGEMENTS = frozenset(
    [
        "summary",
        "abstract",
        "sentiment",
        "language",
        "lang",
        "category",
        "kind",
        "type",
        "documenttype",
        "confidence",
        "reasoning",
        "explanation",
        "caption",
        "topic",
        "tags",
        "tag",
        "zusammenfassung",
        "sprache",
        "resume",
        "resumen",
        "riassunto",
        "samenvatting",
        "classification",
        "label",
        "color",
        "colour",
    ]
)
#: A text of this many words or more that is not found is taken for a summary.
_SUMMARY_WORDS = 12
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
#: A description is searched for the names in its first words only.
_DESCRIPTION_WORDS = 8
_DEEPEST = 60
#: What a label costs that is another word for a field's name, a part of its name, or a word of its description.
_SYNONYM, _PART, _DESCRIBED = 0.1, 0.5, 0.7


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A value of a record that holds no others."""

    pointer: str  #: JSON Pointer
    value: Any  #: text, number, boolean or None; an empty object or array
    parent: str  #: pointer of the object or array that holds it
    field: str  #: its pointer with a star for each index: equal for the same field of all elements of an array
    names: Mapping[str, float]  #: what the picture may call it, folded, with a cost: 0 for the surest name
    judged: bool  #: the value need not be a text of the picture: it is of an enum, or its field's name says so

    @property
    def in_array(self) -> bool:
        return "*" in self.field


@dataclass(frozen=True, kw_only=True, slots=True)
class _Node:
    """A value of the record, with all that its leaves take from above."""

    value: Any
    schema: Mapping[str, Any]
    pointer: str = ""
    parent: str = ""
    field: str = ""
    name: str = ""  #: of the last field above it
    depth: int = 0


def leaves(record: Any, schema: Any = None) -> tuple[Leaf, ...]:
    """The leaves of a record in its order. The schema is optional; what is not understood in it is passed over."""
    root = _mapping(schema)
    return tuple(_leaves(_Node(value=record, schema=root), root))


def _leaves(node: _Node, root: Mapping[str, Any]) -> Iterator[Leaf]:
    schema = _resolved(node.schema, root)
    below = list(_below(node, schema)) if node.depth < _DEEPEST else []
    if below:
        for each in below:
            yield from _leaves(each, root)
        return
    judged = "enum" in schema or fold(node.name) in _JUDGEMENTS or _is_summary(node.value)
    yield Leaf(
        pointer=node.pointer,
        value=node.value,
        parent=node.parent,
        field=node.field,
        names=_names(node.name, schema),
        judged=judged,
    )


def _below(node: _Node, schema: Mapping[str, Any]) -> Iterator[_Node]:
    """The values in an object or an array. Nothing for any other value."""
    steps: Iterable[tuple[str, str, str, Any, Any]] = ()
    if isinstance(node.value, Mapping):
        properties = _mapping(schema.get("properties"))
        escaped = ((str(key).replace("~", "~0").replace("/", "~1"), str(key), each) for key, each in node.value.items())
        steps = ((step, step, key, each, properties.get(key)) for step, key, each in escaped)
    elif isinstance(node.value, list):
        steps = ((str(at), "*", node.name, each, schema.get("items")) for at, each in enumerate(node.value))
    for step, field, name, value, of_it in steps:
        yield _Node(
            value=value,
            schema=_mapping(of_it),
            pointer=f"{node.pointer}/{step}",
            parent=node.pointer,
            field=f"{node.field}/{field}",
            name=name,
            depth=node.depth + 1,
        )


def _is_summary(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) >= _SUMMARY_WORDS


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, for a reference within the document or a choice of which one is not null."""
    for _ in range(8):
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            found: Any = root
            for part in reference[2:].split("/"):
                found = _mapping(found).get(part.replace("~1", "/").replace("~0", "~"))
            schema = {**_mapping(found), **{key: value for key, value in schema.items() if key != "$ref"}}
            continue
        choices = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)), None)
        if choices is None or "properties" in schema:
            break
        real = [each for each in choices if isinstance(each, Mapping) and each.get("type") != "null"]
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "allOf")}
        schema = {**(real[0] if real else {}), **rest}
    return schema


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(name: str, schema: Mapping[str, Any]) -> Mapping[str, float]:
    """What a picture may call a field: its title, its name, parts of it, words of its description, and other words for these."""
    title, description = schema.get("title"), schema.get("description")
    words = _WORDS.findall(name)
    own = {fold(name): 0.0}
    for end in range(len(words) - 1, 0, -1):
        own.setdefault(fold("".join(words[:end])), _PART)
    for start in range(1, len(words)):
        own.setdefault(fold("".join(words[start:])), _PART)
    if isinstance(description, str):
        told = description.split()[:_DESCRIPTION_WORDS]
        for word in [*(told[at] + told[at + 1] for at in range(len(told) - 1)), *told]:
            own.setdefault(fold(word), _DESCRIBED)
    if isinstance(title, str):
        own[fold(title)] = 0.0
    found = dict(own)
    for each, cost in own.items():
        for other in NAMES.get(each, ()):
            found[other] = min(found.get(other, 9.0), cost + _SYNONYM)
    return {each: cost for each, cost in found.items() if len(each) > 1}
