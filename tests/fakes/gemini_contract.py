"""Checks the body of a generateContent request as Gemini's REST API does, field by field.

The field names are those of the published v1beta. Both spellings of Google's JSON reader are accepted (mimeType and mime_type),
because the SDK sends both. Some fields of Gemini are useless for a service that only reads pictures (tools, cachedContent). They
are refused like unknown fields, because the fake does not implement them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pybase64

from .gemini_errors import ApiError, bad_request

LIVE_MODELS = ("gemini-3.5-flash-lite", "gemini-3.8-flash")
BODY_LIMIT = 20 * 1024 * 1024  # bytes: "Request payload size exceeds the limit: 20971520 bytes."
PICTURE_LIMIT = 3600  # Google's page on image understanding
INPUT_TOKENS = 1_048_576  # Google's model pages, both models
OUTPUT_TOKENS = 65_536  # Google's model pages, both models
#: An array bound of this size or more gives a schema "too many states". Google publishes no number; users report the error for
#: bounds of some tens. A chunk usually has 20 records, so this value detects every bound on the records of a chunk.
STATES_BOUND = 20
PICTURE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
#: Tokens of a picture for a 3.x model. Only a part, not a whole request, may ask for ultra high.
PICTURE_TOKENS = {
    "MEDIA_RESOLUTION_UNSPECIFIED": 1120,
    "MEDIA_RESOLUTION_LOW": 280,
    "MEDIA_RESOLUTION_MEDIUM": 560,
    "MEDIA_RESOLUTION_HIGH": 1120,
    "MEDIA_RESOLUTION_ULTRA_HIGH": 2240,
}


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object with any keys."""

    shape: Any


#: A shape is a type, a frozenset of enum values, a [shape] for a list, a MapOf, a dict of fields, or ANY.
ANY = object()
SCHEMA: dict[str, Any] = dict.fromkeys(("format", "title", "description", "pattern"), str)
SCHEMA |= dict.fromkeys(("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"), int)
SCHEMA |= {
    "type": frozenset({"TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"}),
    "minimum": float,
    "maximum": float,
    "nullable": bool,
    "enum": [str],
    "required": [str],
    "propertyOrdering": [str],
    "properties": MapOf(SCHEMA),
    "items": SCHEMA,
    "anyOf": [SCHEMA],
    "default": ANY,
    "example": ANY,
}
PART = {
    "text": str,
    "inlineData": {"mimeType": str, "data": str},
    "fileData": {"mimeType": str, "fileUri": str},
    "mediaResolution": {"level": frozenset(PICTURE_TOKENS)},
}
CONTENT = {"role": str, "parts": [PART]}
BODY = {
    "store": bool,
    "continuationToken": str,
    "contents": [CONTENT],
    "systemInstruction": CONTENT,
    "safetySettings": [
        {
            "category": frozenset(
                "HARM_CATEGORY_" + kind
                for kind in ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT", "CIVIC_INTEGRITY")
            ),
            "threshold": frozenset({"BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"}),
        }
    ],
    "serviceTier": frozenset({"unspecified", "standard", "flex", "priority"}),
    "generationConfig": {
        "candidateCount": int,
        "maxOutputTokens": int,
        "mediaResolution": frozenset(PICTURE_TOKENS) - {"MEDIA_RESOLUTION_ULTRA_HIGH"},
        "responseJsonSchema": ANY,
        "responseMimeType": str,
        "responseSchema": SCHEMA,
        "seed": int,
        "stopSequences": [str],
        "temperature": float,
        "thinkingConfig": {
            "includeThoughts": bool,
            "thinkingBudget": int,
            "thinkingLevel": frozenset({"THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"}),
        },
        "topK": int,
        "topP": float,
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of the user's turn: a text, or a picture by value or by reference."""

    text: str | None = None
    mime: str = ""
    data: bytes | None = None  #: the bytes of inlineData
    uri: str = ""  #: the URI of fileData
    tokens: int = 0  #: input tokens of the part


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One generateContent body that the contract allows."""

    parts: tuple[Part, ...]
    system: str = ""
    json: bool = False  #: responseMimeType is application/json
    schema: Any = None  #: responseSchema or responseJsonSchema
    max_output_tokens: int | None = None
    input_tokens: int = 0
    store: bool | None = None  #: whether Google may store the request; None: not set, so a paid project would store it
    thinking: str | None = None  #: thinkingLevel
    tier: str = "standard"  #: serviceTier
    levels: tuple[str | None, ...] = ()  #: mediaResolution of each picture's part; None: not set


def read_request(raw: bytes) -> Request:
    """Reads a body as Gemini does. Raises ApiError with Google's answer."""
    body = read_json(raw, BODY)
    config = body.get("generationConfig", {})
    _check_config(config)
    default = config.get("mediaResolution", "MEDIA_RESOLUTION_UNSPECIFIED")
    turns = body.get("contents") or []
    if not turns:
        raise bad_request("* GenerateContentRequest.contents: contents is not specified", field="contents")
    if any(turn.get("role", "user") not in ("user", "model") for turn in turns):
        raise bad_request("Please use a valid role: user, model.")
    if turns[-1].get("role", "user") != "user":
        raise bad_request("Please ensure that multiturn requests end with a user turn.")
    parts = tuple(
        _read_part(part, f"contents[{i}].parts[{j}]", default)
        for i, turn in enumerate(turns)
        for j, part in enumerate(turn.get("parts") or [{}])
    )
    if sum(part.text is None for part in parts) > PICTURE_LIMIT:
        raise bad_request(f"Please use fewer than {PICTURE_LIMIT} images in your request.")
    system = "\n".join(part.get("text", "") for part in body.get("systemInstruction", {}).get("parts", []))
    tokens = sum(part.tokens for part in parts) + tokens_of(system)
    if tokens > INPUT_TOKENS:  # users report a 500 with a link to Google's troubleshooting page
        raise ApiError(500, f"Your input context is too long: {tokens} tokens, at most {INPUT_TOKENS}.")
    return Request(
        parts=parts,
        system=system,
        json=config.get("responseMimeType") == "application/json",
        schema=config.get("responseJsonSchema", config.get("responseSchema")),
        max_output_tokens=config.get("maxOutputTokens"),
        input_tokens=tokens,
        store=body.get("store"),
        tier=body.get("serviceTier", "standard"),
        thinking=config.get("thinkingConfig", {}).get("thinkingLevel"),
        levels=tuple(
            part.get("mediaResolution", {}).get("level")
            for turn in turns
            for part in turn.get("parts") or [{}]
            if "text" not in part
        ),
    )


def features_of(request: Request) -> set[str]:
    """What a request needs of its model, by the names of gemini_errors.LACKS."""
    needed = {"schema": request.schema is not None, "json": request.json, "system": bool(request.system)}
    return {name for name, is_needed in needed.items() if is_needed}


def read_json(raw: bytes, shape: Any) -> dict[str, Any]:
    """Reads a JSON body that may have only these fields. Returns them under their camelCase names. Raises ApiError."""
    try:
        value = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"Invalid JSON payload received. {error}") from error
    if not isinstance(value, dict):
        raise bad_request('Invalid JSON payload received. Unknown name "": Root element must be a message.')
    checked: dict[str, Any] = _checked(value, shape, "")
    return checked


def tokens_of(text: str) -> int:
    """The number of tokens of a text: one for four characters, as Google's page on tokens says."""
    return -(-len(text) // 4)


def _no_constant(name: str) -> None:
    raise ValueError(f"Unexpected token: {name}")


def _checked(value: Any, shape: Any, path: str) -> Any:
    if shape is ANY:
        return value
    if isinstance(shape, dict | MapOf):
        if not isinstance(value, dict):
            raise _wrong(value, path)
        if isinstance(shape, MapOf):
            return {name: _checked(item, shape.shape, f"{path}.{name}") for name, item in value.items()}
        return _checked_fields(value, shape, path)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(value, path)
        return [_checked(item, shape[0], f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(shape, frozenset):
        if not isinstance(value, str) or value not in shape:
            raise _wrong(value, path)
        return value
    if shape is int and isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)  # Google's JSON reader accepts 64-bit integers as text
    fits = isinstance(value, int | float) if shape is float else isinstance(value, shape)
    if not fits or (isinstance(value, bool) and shape is not bool):
        raise _wrong(value, path)
    return value


def _checked_fields(value: dict[str, Any], shape: dict[str, Any], path: str) -> dict[str, Any]:
    names = shape | {_snake(name): kind for name, kind in shape.items()}
    fields: dict[str, Any] = {}
    for name, item in value.items():
        if name not in names:
            where = f" at '{path}'" if path else ""
            raise bad_request(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.', field=path)
        camel = re.sub(r"_(.)", lambda found: found[1].upper(), name)
        if camel in fields:
            raise bad_request(f"Invalid JSON payload received. Proto field '{_snake(name)}' is already set.", field=path)
        if item is not None:
            fields[camel] = _checked(item, names[name], f"{path}.{_snake(name)}".lstrip("."))
    return fields


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name)


def _wrong(value: Any, path: str) -> ApiError:
    return bad_request(f"Invalid value at '{path}': {json.dumps(value)[:100]}", field=path)


def _read_part(part: dict[str, Any], path: str, default: str) -> Part:
    kinds = [name for name in ("text", "inlineData", "fileData") if name in part]
    if len(kinds) != 1 or not part[kinds[0]]:
        raise bad_request(f"{path}.data: required oneof field 'data' must have one initialized field", field=f"{path}.data")
    if kinds == ["text"]:
        return Part(text=part["text"], tokens=tokens_of(part["text"]))
    source = part[kinds[0]]
    mime = source.get("mimeType", "")
    if mime not in PICTURE_TYPES:
        raise bad_request(f"Unsupported MIME type: {mime}")
    level = part.get("mediaResolution", {}).get("level", default)
    if kinds == ["fileData"]:
        return Part(mime=mime, uri=source.get("fileUri", ""), tokens=PICTURE_TOKENS[level])
    text = source.get("data", "")
    try:  # Google's APIs accept both base64 alphabets, and the SDK sends the URL-safe one
        data = pybase64.b64decode(text, altchars=b"-_" if "-" in text or "_" in text else None, validate=True)
    except ValueError as error:
        raise bad_request(
            f"Invalid value at '{path}.inline_data.data' (TYPE_BYTES), Base64 decoding failed", field=path
        ) from error
    if not data:
        raise bad_request(f"{path}.inline_data.data: required field must not be empty", field=path)
    return Part(mime=mime, data=data, tokens=PICTURE_TOKENS[level])


def _check_config(config: dict[str, Any]) -> None:
    for name in ("temperature", "topP", "topK"):
        if name in config:
            raise bad_request(f"{_snake(name)} is deprecated and not supported by this model.")
    if not 1 <= config.get("candidateCount", 1) <= 1:
        raise bad_request("Multiple candidates is not enabled for this model")
    if not 1 <= config.get("maxOutputTokens", 1) <= OUTPUT_TOKENS:
        raise bad_request(
            f"Unable to submit request because it has a maxOutputTokens value of {config['maxOutputTokens']} but the "
            f"supported range is from 1 (inclusive) to {OUTPUT_TOKENS + 1} (exclusive). Update the value and try again."
        )
    if len(config.get("stopSequences", [])) > 5:
        raise bad_request("The number of stop_sequences must be at most 5.")
    thinking = config.get("thinkingConfig", {})
    if "thinkingLevel" in thinking and "thinkingBudget" in thinking:
        raise bad_request("You can only set only one of thinking budget and thinking level.")
    mime = config.get("responseMimeType", "text/plain")
    if mime not in ("text/plain", "application/json"):
        raise bad_request(f"Unsupported response mime type: {mime}. Allowed: text/plain, application/json.")
    schemas = [config[name] for name in ("responseSchema", "responseJsonSchema") if name in config]
    if len(schemas) > 1:
        raise bad_request("Only one of response_schema and response_json_schema may be set.")
    if schemas and mime != "application/json":
        raise bad_request("A response schema needs response_mime_type application/json.")
    if any(not isinstance(schema, dict) for schema in schemas):
        raise bad_request("Invalid value at 'generation_config.response_json_schema': a schema is an object.")
    if any(bound >= STATES_BOUND for schema in schemas for bound in _bounds(schema)):
        raise bad_request(
            "The specified schema produces a constraint that has too many states for serving. Typical causes of this error "
            "are schemas with lots of text (for example, very long property or enum names), schemas with long array length "
            "limits (especially when nested), or schemas with complex value matchers."
        )


def _bounds(schema: Any) -> list[int]:
    """Every minItems and maxItems in a schema. Only integers count, because a property may have one of these names."""
    if isinstance(schema, list):
        return [bound for item in schema for bound in _bounds(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema[name] for name in ("minItems", "maxItems") if isinstance(schema.get(name), int)]
    return own + [bound for item in schema.values() for bound in _bounds(item)]
