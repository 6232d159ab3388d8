"""The fake's answers: texts that tell the pictures' numbers, in Gemini's response documents."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .gemini_behaviours import Behaviour, Record
from .gemini_calls import SeenCall, resolved
from .gemini_contract import OUTPUT_TOKENS, tokens_of
from .gemini_errors import UNREADABLE, ApiError

JSON_TYPE = "application/json; charset=UTF-8"
HTML_TYPE = "text/html; charset=UTF-8"


class Outcome(StrEnum):
    """How a call ended. For an HTTP error, the outcome is `http <status>` instead."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    BLOCKED = "blocked"
    UNREADABLE = "unreadable"  #: HTTP 400 for a picture
    RESET = "reset"
    GARBAGE = "garbage"
    CUT_OFF = "cut off"
    NO_CANDIDATES = "no candidates"
    SPOILED = "spoiled"  #: complete, but a test changed the text or the records
    CLIENT_GONE = "client gone"  #: the client had closed the connection before the answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The answer to send on the connection."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  #: only half of `body` is sent
    reset: bool = False  #: nothing is sent
    outcome: str = ""
    answered: tuple[int, ...] = ()  #: numbers of the pictures that this reply answers completely


def error_reply(error: ApiError, outcome: str = "") -> Reply:
    body = error.body()
    kind = JSON_TYPE if body.startswith(b"{") else HTML_TYPE
    return Reply(status=error.code, body=body, content_type=kind, outcome=outcome or f"http {error.code}")


def answer(call: SeenCall, behaviour: Behaviour, input_tokens: int, *, served: str = "standard") -> Reply:
    """The reply to an accepted call, according to `behaviour`. `served`: the tier in which it was served."""
    if behaviour.reset:
        return Reply(reset=True, outcome=Outcome.RESET)
    if behaviour.error:
        return error_reply(behaviour.error, Outcome.UNREADABLE if behaviour.error.message == UNREADABLE else "")
    if behaviour.garbage:
        return Reply(body=b"upstream connect error or disconnect/reset before headers", outcome=Outcome.GARBAGE)
    usage: dict[str, Any] = {"promptTokenCount": input_tokens, "totalTokenCount": input_tokens, "serviceTier": served}
    document: dict[str, Any] = {
        "modelVersion": f"{call.model}-001",
        "responseId": f"response-{call.order}",
        "usageMetadata": usage,
    }
    if behaviour.prompt_block:
        return _sent({"promptFeedback": {"blockReason": behaviour.prompt_block}, **document}, Outcome.BLOCKED)
    if behaviour.no_candidates:
        return _sent({"candidates": [], **document}, Outcome.NO_CANDIDATES)
    text, whole, answered = _text(call, behaviour)
    text, finish = _ended(text, call, behaviour)
    if text:
        usage["candidatesTokenCount"] = tokens_of(text)
    if behaviour.thoughts:
        usage["thoughtsTokenCount"] = behaviour.thoughts
    usage["totalTokenCount"] += tokens_of(text) + behaviour.thoughts
    candidate: dict[str, Any] = {"finishReason": finish, "index": 0}
    if finish == "CONTINUATION":
        document["continuationToken"] = f"token-{call.order}"
    if finish in ("STOP", "MAX_TOKENS", "CONTINUATION"):
        candidate["content"] = {"role": "model"} | ({"parts": [{"text": text}]} if text else {})
    document["candidates"] = [candidate]
    if behaviour.cut:
        return _sent(document, Outcome.CUT_OFF, cut=True)
    if finish != "STOP":
        return _sent(document, Outcome.TRUNCATED if finish in ("MAX_TOKENS", "CONTINUATION") else Outcome.BLOCKED)
    return _sent(document, Outcome.COMPLETE if whole else Outcome.SPOILED, answered=answered)


def _ended(text: str, call: SeenCall, behaviour: Behaviour) -> tuple[str, str]:
    """The part of the text that is sent, and the finishReason. Thoughts and text share maxOutputTokens."""
    room = max((call.max_output_tokens or OUTPUT_TOKENS) - behaviour.thoughts, 0)
    if behaviour.finish in ("MAX_TOKENS", "CONTINUATION"):
        return text[: min(len(text) // 2, room * 4)], behaviour.finish
    if behaviour.finish != "STOP":
        return "", behaviour.finish
    return (text, "STOP") if tokens_of(text) <= room else (text[: room * 4], "MAX_TOKENS")


def _sent(document: dict[str, Any], outcome: str, *, cut: bool = False, answered: tuple[int, ...] = ()) -> Reply:
    return Reply(body=json.dumps(document).encode(), outcome=outcome, cut=cut, answered=answered)


def _text(call: SeenCall, behaviour: Behaviour) -> tuple[str, bool, tuple[int, ...]]:
    """The answer's text, whether it answers every picture, and the numbers of the answered pictures."""
    numbers = tuple(number for number in call.numbers if number is not None)
    whole = True
    if call.form == "records":
        records = changed = _records(call)
        if behaviour.records:
            changed = behaviour.records(records)
            times = Counter(record["index"] for record in changed)
            good = {record["index"] for record in changed if record in records and times[record["index"]] == 1}
            whole = len(good) == len(changed) == len(records)
            numbers = tuple(n for label, n in zip(call.labels, call.numbers, strict=True) if label in good and n is not None)
        text = json.dumps(changed)
    elif call.form == "json":
        text = json.dumps(_document(call))
    else:
        lines = (f"Image {label} shows {number}." for label, number in zip(call.labels, call.numbers, strict=True))
        text = "\n".join(lines) or _retold(call)
    return (text, whole, numbers) if behaviour.text is None else (behaviour.text(text), False, ())


def _records(call: SeenCall) -> list[Record]:
    item = resolved(call.schema["items"], call.schema)
    rest = {name: schema for name, schema in item["properties"].items() if name != "index"}
    return [
        {"index": label, **{name: example_of(schema, number, call.schema) for name, schema in rest.items()}}
        for label, number in zip(call.labels, call.numbers, strict=True)
    ]


def _document(call: SeenCall) -> Any:
    schema = resolved(call.schema, call.schema)
    if schema.get("properties") or schema.get("items"):
        return example_of(schema, next(iter(call.numbers), None), call.schema)
    if not call.numbers:
        return {"pictures": [picture for line in _documents(call) for picture in json.loads(line)["pictures"]]}
    return {"pictures": [{"label": label, "number": n} for label, n in zip(call.labels, call.numbers, strict=True)]}


def _documents(call: SeenCall) -> list[str]:
    """For a call without pictures: each line of the prompt that is a document of `_document`."""
    return re.findall(r'^\{"pictures": .*\}$', "\n".join(call.prompt), re.MULTILINE)


def _retold(call: SeenCall) -> str:
    """For a call without pictures, which merges answers: each line of the prompt that says what a picture shows."""
    lines = re.findall(r"^Image \S+ shows \S+\.$", "\n".join(call.prompt), re.MULTILINE)
    return "\n".join(lines) or "No picture is shown."


def example_of(schema: Any, number: int | None, root: Any) -> Any:
    """A value that fits a JSON Schema (types, enum, const, ranges, anyOf, $ref) and contains the picture's number.

    A string is "picture <number>". An integer or a number is the number itself, limited to minimum and maximum. If the schema
    allows any value, it is {"number": <number>}.
    """
    schema = resolved(schema, root)
    for name in ("anyOf", "oneOf", "allOf"):
        options = [option for option in schema.get(name, ()) if resolved(option, root).get("type") not in ("null", "NULL")]
        if options:
            return example_of(options[0], number, root)
    if "const" in schema or schema.get("enum"):
        return schema.get("const", next(iter(schema.get("enum", ())), None))
    kinds = schema.get("type", "object" if "properties" in schema else "")
    kind = next((kind.lower() for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind.lower() != "null"), "null")
    if kind == "array":
        return [example_of(schema.get("items", {}), number, root)]
    if kind in ("integer", "number"):
        at_most = min(number or 0, schema.get("maximum", number or 0))
        return max(at_most, schema.get("minimum", at_most))
    if schema.get("properties"):
        return {name: example_of(value, number, root) for name, value in schema["properties"].items()}
    fixed = {"string": f"picture {number}", "boolean": bool((number or 0) % 2), "null": None}
    return fixed.get(kind, {"number": number})
