"""Names the address that a request to an unknown address was meant for."""

from __future__ import annotations

import difflib
import re

from werkzeug.routing import Map, Rule

MAIN = "/api/v1/extract-image"
_LOOKED_AT = 200  #: characters of the address that are looked at
_NEAR = 0.75  #: how alike two parts of an address must be, from 0 to 1
_PREFIX = re.compile(r"^(?:/+(?:api|v\d+(?:beta|alpha)?\d*))*(?=/|$)")
#: Addresses of other services' endpoints that do what ours does.
_OTHERS = re.compile(
    r"chat/completions|/completions|/responses|/messages|generatecontent|/ocr|/vision|/analy[sz]e|/predict|/extract(?:ions?|/images?)?$"
)


def right_address(method: str, path: str, known: Map) -> str:
    """A sentence, after a space, that names the address which was probably meant. Without one it names where all are listed."""
    asked = path[:_LOOKED_AT].rstrip("/").lower()
    parts = _parts(asked)
    near = [rule for rule in known.iter_rules() if parts and _is_near(parts, _parts(rule.rule))]
    if near:
        rule = min(near, key=lambda rule: (method not in (rule.methods or ()), rule.rule))
        return f" Did you mean {method if method in (rule.methods or ()) else _methods(rule)} {rule.rule}?"
    if _OTHERS.search(asked):
        return f" Did you mean POST {MAIN}? This service has an interface of its own: see /docs."
    return " GET /docs lists every address."


def _parts(path: str) -> list[str]:
    """The parts of an address without a prefix such as `/api/v1` or `/v2`."""
    return [part for part in _PREFIX.sub("", path, count=1).replace("_", "-").split("/") if part]


def _is_near(asked: list[str], ours: list[str]) -> bool:
    pairs = list(zip(asked, ours, strict=False))
    return len(asked) == len(ours) and all(other.startswith("<") or _is_like(part, other) for part, other in pairs)


def _is_like(part: str, ours: str) -> bool:
    return difflib.SequenceMatcher(None, part, ours).ratio() >= _NEAR


def _methods(rule: Rule) -> str:
    return " or ".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
