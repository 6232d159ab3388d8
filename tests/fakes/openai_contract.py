"""Checks a chat completion request strictly against OpenAI's published document (CreateChatCompletionRequest).

The document is https://github.com/openai/openai-openapi. Names that are not in it are refused, as OpenAI's own server does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pybase64

#: The properties of CreateChatCompletionRequest.
REQUEST = frozenset(
    [
        "messages",
        "model",
        "modalities",
        "verbosity",
        "reasoning_effort",
        "max_completion_tokens",
        "frequency_penalty",
        "presence_penalty",
        "web_search_options",
        "top_logprobs",
        "response_format",
        "audio",
        "store",
        "stream",
        "stop",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "prediction",
        "seed",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "function_call",
        "functions",
        "metadata",
        "temperature",
        "top_p",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
    ]
)
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
DATA_URI = re.compile(r"data:(image/[a-z]+);base64,(.*)", re.DOTALL)
BODY_LIMIT = 50 * 1024 * 1024
OUTPUT_LIMIT = 16_384


class Refusal(Exception):
    """An error answer, with a body in OpenAI's format."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One content part."""

    text: str | None = None
    mime: str = ""
    data: bytes = b""
    detail: str = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request that obeys the document."""

    model: str
    system: str
    parts: tuple[Part, ...]
    limit: int | None
    limit_name: str
    format: str  #: text, json_object or json_schema
    schema: Any  #: the JSON Schema if the format is json_schema, else None
    stream: bool | None  #: None: not said
    says_detail: bool  #: whether a picture has the field `detail`
    tier: str  #: service_tier


def read(raw: bytes) -> Asked:
    """Reads the body of a request. Raises Refusal."""
    try:
        body = json.loads(raw)
    except ValueError:
        raise Refusal(400, "We could not parse the JSON body of your request.") from None
    _members(body, REQUEST, "")
    _expect(isinstance(body.get("model"), str) and body["model"], "model", "you must provide a model parameter")
    messages = body.get("messages")
    _expect(isinstance(messages, list) and messages, "messages", "[] is too short - 'messages'")
    system, parts = "", []
    for at, message in enumerate(messages):
        path = f"messages[{at}]"
        _members(message, {"role", "content", "name"}, path)
        _expect(message.get("role") in {"system", "developer", "user"}, f"{path}.role", "invalid role")
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        _expect(isinstance(content, list) and content, f"{path}.content", "expected a string or an array of content parts")
        found = [_part(part, f"{path}.content[{place}]") for place, part in enumerate(content)]
        if message["role"] == "user":
            parts += found
        else:
            _expect(all(part.text is not None for part in found), f"{path}.content", "a system message holds text alone")
            system += "".join(part.text or "" for part in found)
    limits = [name for name in ("max_tokens", "max_completion_tokens") if name in body]
    _expect(len(limits) < 2, "max_tokens", "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported")
    limit = body[limits[0]] if limits else None
    tier = body.get("service_tier", "auto")
    _expect(tier in {"auto", "default", "flex", "scale", "priority"}, "service_tier", f"Invalid value: '{tier}'")
    _expect(limit is None or (type(limit) is int and 1 <= limit <= OUTPUT_LIMIT), "max_tokens", "max_tokens is too large")
    words = system + "".join(part.text or "" for part in parts)
    kind, schema = _format(body.get("response_format", {"type": "text"}), words)
    return Asked(
        model=body["model"],
        tier=tier,
        system=system,
        parts=tuple(parts),
        limit=limit,
        limit_name="".join(limits),
        format=kind,
        schema=schema,
        stream=body.get("stream"),
        says_detail=b'"detail":' in raw,
    )


def _part(part: Any, path: str) -> Part:
    _expect(isinstance(part, dict), path, "expected an object")
    if part.get("type") == "text":
        _members(part, {"type", "text"}, path)
        _expect(isinstance(part.get("text"), str) and part["text"], f"{path}.text", "text content blocks must be non-empty")
        return Part(text=part["text"])
    _expect(part.get("type") == "image_url", f"{path}.type", "Invalid value. Supported values are: 'text', 'image_url', …")
    _members(part, {"type", "image_url"}, path)
    image = part.get("image_url")
    _members(image, {"url", "detail"}, f"{path}.image_url")
    _expect(image.get("detail", "auto") in {"auto", "low", "high"}, f"{path}.image_url.detail", "auto, low or high")
    found = DATA_URI.fullmatch(image.get("url") or "")
    _expect(found is not None, f"{path}.image_url.url", "this server fetches nothing: a data URI")
    assert found is not None
    try:
        data = pybase64.b64decode(found[2], validate=True)
    except ValueError:
        raise Refusal(400, f"Invalid base64 image_url at {path}", code="invalid_base64") from None
    return Part(mime=found[1], data=data, detail=image.get("detail", "auto"))


def _format(value: Any, words: str) -> tuple[str, Any]:
    _members(value, {"type", "json_schema"}, "response_format")
    kind = value.get("type")
    if kind == "json_schema":
        given = value.get("json_schema")
        _members(given, {"name", "description", "schema", "strict"}, "response_format.json_schema")
        _expect(bool(NAME.fullmatch(given.get("name") or "")), "response_format.json_schema.name", "Invalid name")
        schema = given.get("schema")
        root = isinstance(schema, dict) and schema.get("type") == "object"
        _expect(root, "response_format", "schema must be a JSON Schema of 'type: \"object\"', got another")
        return kind, schema
    _expect(kind in {"text", "json_object"}, "response_format.type", "text, json_object or json_schema")
    if kind == "json_object":
        said = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        _expect("json" in words.lower(), "messages", said)
    return str(kind), None


def _members(value: Any, known: frozenset[str] | set[str], path: str) -> None:
    _expect(isinstance(value, dict), path, "expected an object")
    for name in value:
        _expect(name in known, f"{path}.{name}".strip("."), f"Unrecognized request argument supplied: {name}")


def _expect(holds: Any, param: str, otherwise: str) -> None:
    if not holds:
        raise Refusal(400, f"Invalid '{param}': {otherwise}", param=param)
