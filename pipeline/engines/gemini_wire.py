"""What generateContent is sent and what it answers, as bytes.

The SDK builds the same body from models of every part, copies them several times and encodes them with the standard library:
0.7 s of CPU for each 1000 pictures of 30 KB, which all threads of a worker wait for. Here it is 0.05 s. Source of the fields:
the API's reference of generateContent, v1beta.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pybase64

from pipeline.engines.wording import instruction
from pipeline.types import MAX_OUTPUT_TOKENS, Call, Detail, Form

_RESOLUTIONS = {Detail.LOW: "MEDIA_RESOLUTION_LOW", Detail.MEDIUM: "MEDIA_RESOLUTION_MEDIUM"}


def request_body(call: Call, files: Mapping[int, str], *, store: bool = False) -> bytes:
    """The JSON of the request. `files`: where the pictures are that the model has been sent before, by their numbers.

    `store`: whether Google may keep the request. It is always said, because projects on a paid plan keep requests unless told not to.
    """
    told, schema = instruction(call)
    # The prompt once, then each picture behind its label: unlabelled, models describe just the last one.
    parts: list[dict[str, Any]] = [{"text": call.prompt}]
    for picture in call.pictures:
        parts.append({"text": f"Image {picture.number}:"})
        if picture.number in files:
            part: dict[str, Any] = {"fileData": {"mimeType": picture.mime, "fileUri": files[picture.number]}}
        else:
            # Base64 has nothing to escape, so it need not be looked through for it.
            encoded = msgspec.Raw(b'"%b"' % pybase64.b64encode(picture.data))
            part = {"inlineData": {"mimeType": picture.mime, "data": encoded}}
        if call.detail is Detail.ULTRA:  # can be said of a picture alone, not of the whole request
            part["mediaResolution"] = {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}
        parts.append(part)
    body = {
        "store": store,
        "contents": [{"role": "user", "parts": parts}],
        "systemInstruction": {"role": "user", "parts": [{"text": told}]},
        "generationConfig": _config(call, schema),
    }
    return msgspec.json.encode(body)


def _config(call: Call, schema: dict[str, Any] | None) -> dict[str, Any]:
    """Neither temperature, topP nor topK (deprecated), nor minItems and maxItems (refused when large)."""
    config: dict[str, Any] = {"maxOutputTokens": MAX_OUTPUT_TOKENS}
    if call.thinking is not None:
        config["thinkingConfig"] = {"thinkingLevel": call.thinking.value.upper()}
    if call.detail in _RESOLUTIONS:  # high is the models' own
        config["mediaResolution"] = _RESOLUTIONS[call.detail]
    if call.form is not Form.TEXT:
        config["responseMimeType"] = "application/json"
    if schema is not None:
        config["responseJsonSchema"] = schema
    return config


class Part(msgspec.Struct):
    text: str | None = None
    thought: bool | None = None


class Content(msgspec.Struct):
    parts: list[Part] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None


class Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class Tokens(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class Response(msgspec.Struct, rename="camel"):
    """What is read of an answer; other fields are passed over."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Tokens | None = None
    model_version: str | None = None

    @property
    def text(self) -> str:
        """Of the first candidate, without what the model thought."""
        content = self.candidates[0].content if self.candidates else None
        return "".join(part.text or "" for part in (content.parts or [] if content else []) if not part.thought)


def read_response(body: bytes) -> Response:
    """Raises msgspec.MsgspecError, ValueError or RecursionError for what is no answer."""
    try:
        return msgspec.json.decode(body, type=Response)
    except msgspec.DecodeError:  # half a character (\ud800), or a number as text: the standard library takes both
        return msgspec.convert(json.loads(body), Response, strict=False)
