"""Corrects a record: sets values at JSON Pointers, and lists how two records differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

DEEPEST = 50  #: levels that are compared; what is further inside is compared as a whole
_MISSING = object()


class WrongPointer(Exception):
    """A JSON Pointer leads nowhere. The message names it."""


def with_changes(record: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of the record with these values at these JSON Pointers. Raises WrongPointer."""
    changed = deepcopy(record)
    for pointer, value in changes.items():
        if pointer == "":
            changed = value
            continue
        if not pointer.startswith("/"):
            raise WrongPointer(f"{_shown(pointer)} is no JSON Pointer: it must begin with /.")
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
        parent = changed
        for part in path:
            parent = _child(parent, part, pointer)
        if isinstance(parent, dict):
            parent[last] = value
        elif isinstance(parent, list) and last.isascii() and last.isdigit() and len(last) < 10 and int(last) <= len(parent):
            parent[int(last) : int(last) + 1] = [value]
        else:
            raise WrongPointer(f"{_shown(pointer)} leads to no place in the record.")
    return changed


def _child(parent: Any, part: str, pointer: str) -> Any:
    if isinstance(parent, dict) and part in parent:
        return parent[part]
    if isinstance(parent, list) and part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(parent):
        return parent[int(part)]
    raise WrongPointer(f"{_shown(pointer)} leads to no place in the record.")


def differences(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """Pointer, value before and value after of each difference. The value of a member that is missing is None."""
    left: list[tuple[str, Any, Any, int]] = [("", before, after, 0)]
    while left:
        pointer, was, now, depth = left.pop()
        if isinstance(was, dict) and isinstance(now, dict) and depth < DEEPEST:
            names = list(dict.fromkeys([*was, *now]))
            left += [
                (f"{pointer}/{_escaped(name)}", was.get(name, _MISSING), now.get(name, _MISSING), depth + 1)
                for name in reversed(names)
            ]
        elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now) and depth < DEEPEST:
            left += [(f"{pointer}/{at}", was[at], now[at], depth + 1) for at in reversed(range(len(was)))]
        elif type(was) is not type(now) or was != now:
            yield pointer, None if was is _MISSING else was, None if now is _MISSING else now


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _shown(pointer: str) -> str:
    return repr(pointer[:100])
