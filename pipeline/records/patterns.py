"""Finds the patterns of a schema that cannot be checked, and loosens the schema so that it can be checked without them. Pure.

Patterns run in an engine that never backtracks, because a stranger's pattern could otherwise hold a worker for hours. Such an
engine has no look-around and no back-references. Tools write them all the same: Pydantic for a Decimal, Zod for an email. The
model is told these patterns, and records are not checked against them (docs/adr/0028).

A loosened schema accepts every record that the whole schema accepts. Leaving out a pattern is therefore not always enough: inside
`not`, less to fit would mean more to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.records.schema import LIST, MAP, ONE, resolve, subschemas

_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"{_PAIR}|\\.", re.DOTALL)
_TOKEN = re.compile(rf"{_PAIR}|\\.|\[\^?\]|\[(?:\\.|[^\]\\])+\]", re.DOTALL)
_PAIR_LENGTH = 12
_SPELLINGS = {r"\Z": r"\z", r"\0": r"\x00", r"\a": r"\x07", r"\e": r"\x1b", "[^]": r"[\s\S]", "[]": r"[^\s\S]"}


def translated(pattern: str) -> str:
    r"""The pattern in the words of Rust's regex engine, where JavaScript or Python spell the same thing differently.

    Two halves of a surrogate pair become one code point, `\Z` becomes `\z`, and `[^]` becomes `[\s\S]`.
    """
    return _TOKEN.sub(_token_translated, pattern)


def _token_translated(found: re.Match[str]) -> str:
    """An escape, or a class of characters with the escapes in it."""
    is_class = found[0].startswith("[") and found[0] not in _SPELLINGS
    return _ESCAPE.sub(_escape_translated, found[0]) if is_class else _escape_translated(found)


def _escape_translated(found: re.Match[str]) -> str:
    token = found[0]
    if len(token) == _PAIR_LENGTH:
        high, low = int(token[2:6], 16), int(token[8:12], 16)
        return f"\\u{{{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):x}}}"
    return _SPELLINGS.get(token, token)


def loosened(root: Mapping[str, Any], is_checked: Callable[[str], bool]) -> tuple[dict[str, Any], list[str]]:
    """The schema without the patterns that are not checked, and the paths of these patterns.

    `root` has passed `check_schema`. `is_checked` says whether a pattern can be checked. A schema without patterns is given back as
    it is, because going through a large one takes 15 ms.
    """
    if "'pattern" not in repr(root):
        return dict(root), []
    loosening = _Loosening(root, is_checked)
    schema = loosening.of(root, "#")
    return (_without_unevaluated(schema) if loosening.forgets else schema), loosening.found


class _Loosening:
    def __init__(self, root: Mapping[str, Any], is_checked: Callable[[str], bool]) -> None:
        self.found: list[str] = []  #: the paths of the patterns that are not checked
        #: More than single patterns was left out, so the validator no longer knows which members a schema has looked at.
        self.forgets = False
        self._root = root
        self._is_checked = is_checked
        self._tainted: dict[int, bool] = {}  #: by `id()` of a subschema: whether it has a pattern that is not checked

    def of(self, schema: Any, at: str) -> Any:
        """The subschema at the path `at`, loosened."""
        if not isinstance(schema, dict):
            return schema
        read = {name: self._part(name, value, f"{at}/{name}") for name, value in schema.items()}
        if self._is_unchecked(schema.get("pattern")):
            self.found.append(f"{at}/pattern")
            del read["pattern"]
        elif isinstance(schema.get("pattern"), str):
            read["pattern"] = translated(schema["pattern"])
        self._loosen_names(read, schema, at)
        if self._is_tainted(schema.get("not")):
            self._forget(read, "not")
        if self._is_tainted(schema.get("if")):
            self._forget(read, "if", "then", "else")
        if self._is_tainted(schema.get("contains")):
            read.pop("maxContains", None)
        if any(map(self._is_tainted, schema["oneOf"] if isinstance(schema.get("oneOf"), list) else [])):
            # Two alternatives may fit now where only one did.
            read["allOf"] = [*read.get("allOf", []), {"anyOf": read.pop("oneOf")}]
        return read

    def _loosen_names(self, read: dict[str, Any], schema: Mapping[str, Any], at: str) -> None:
        """Handles the patterns of `patternProperties`."""
        parts = schema.get("patternProperties")
        if not isinstance(parts, dict):
            return
        unchecked = [pattern for pattern in parts if self._is_unchecked(pattern)]
        self.found += [f"{at}/patternProperties/{pattern[:40]}" for pattern in unchecked]
        read["patternProperties"] = {
            translated(pattern): part for pattern, part in read["patternProperties"].items() if pattern not in unchecked
        }
        if unchecked:  # the members that these patterns name are no additional properties
            self._forget(read, "additionalProperties")

    def _part(self, name: str, value: Any, at: str) -> Any:
        if name in ONE:
            return self.of(value, at)
        if name in LIST and isinstance(value, list):
            return [self.of(part, f"{at}/{place}") for place, part in enumerate(value)]
        if name in MAP and isinstance(value, dict):
            return {key: self.of(part, f"{at}/{key}") for key, part in value.items()}
        return value

    def _forget(self, read: dict[str, Any], *names: str) -> None:
        self.forgets = True
        for name in names:
            read.pop(name, None)

    def _is_unchecked(self, pattern: Any) -> bool:
        return isinstance(pattern, str) and not self._is_checked(pattern)

    def _is_tainted(self, schema: Any) -> bool:
        """Whether the subschema, or one that it refers to, has a pattern that is not checked."""
        if not isinstance(schema, dict):
            return False
        if id(schema) not in self._tainted:
            parts = [part for _, part in subschemas(schema)]
            if "$ref" in schema:
                parts.append(resolve(self._root, schema["$ref"], ""))
            named = schema.get("patternProperties")
            patterns = [schema.get("pattern"), *(named if isinstance(named, dict) else ())]
            self._tainted[id(schema)] = any(map(self._is_unchecked, patterns)) or any(map(self._is_tainted, parts))
        return self._tainted[id(schema)]


def _without_unevaluated(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_unevaluated(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name not in ("unevaluatedProperties", "unevaluatedItems")}
    return {
        name: {key: _without_unevaluated(part) for key, part in value.items()}
        if name in MAP and isinstance(value, dict)
        else _without_unevaluated(value)
        if name in ONE or name in LIST
        else value
        for name, value in kept.items()
    }
