"""Writes the request of generateContent as bytes, and reads its answer.

The SDK builds the same body from models of every part, copies them several times and encodes them with the standard library. That
takes 0.7 s of CPU for each 1000 pictures of 30 KB, and all threads of a worker wait meanwhile. This module takes 0.05 s. The
fields are those of the API's reference of generateContent, v1beta.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pybase64

from pipeline.engines.manners import SCHEMA, WORDS, Manner
from pipeline.engines.wording import in_words, instruction
from pipeline.types import Call, Detail, Tier

FLEX = "flex"  #: Google's name of the tier `economy`
_RESOLUTIONS = {Detail.LOW: "MEDIA_RESOLUTION_LOW", Detail.MEDIUM: "MEDIA_RESOLUTION_MEDIUM"}


def request_body(call: Call, files: Mapping[int, str], *, manner: Manner, store: bool = False) -> bytes:
    """The JSON of the request. `files`: the addresses of the pictures that were uploaded before, by the pictures' numbers.

    `store`: whether Google may keep the request. The request always has this field, because projects on a paid plan keep
    requests otherwise.
    """
    told, schema = instruction(call)
    if schema is not None and (manner.format != SCHEMA or manner.told):
        told = in_words(told, schema)
    # The prompt comes once, then each picture after its label. Without labels, models describe only the last picture.
    parts: list[dict[str, Any]] = [{"text": call.prompt if manner.system else f"{told}\n\n{call.prompt}"}]
    for picture in call.pictures:
        parts.append({"text": f"Image {picture.number}:"})
        if picture.number in files:
            part: dict[str, Any] = {"fileData": {"mimeType": picture.mime, "fileUri": files[picture.number]}}
        else:
            # The encoder need not search Base64 for characters to escape, because it has none.
            encoded = msgspec.Raw(b'"%b"' % pybase64.b64encode(picture.data))
            part = {"inlineData": {"mimeType": picture.mime, "data": encoded}}
        if (
            call.detail is Detail.ULTRA and manner.detail
        ):  # the API accepts this level only on a picture, not on the whole request
            part["mediaResolution"] = {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}
        parts.append(part)
    body: dict[str, Any] = {"store": store, "contents": [{"role": "user", "parts": parts}]}
    if call.tier is Tier.ECONOMY:
        body["serviceTier"] = FLEX
    if manner.system:
        body["systemInstruction"] = {"role": "user", "parts": [{"text": told}]}
    body["generationConfig"] = _config(call, schema, manner)
    return msgspec.json.encode(body)


def _config(call: Call, schema: dict[str, Any] | None, manner: Manner) -> dict[str, Any]:
    """The generationConfig of the request.

    It has no temperature, topP or topK, because they are deprecated. Its schema has no minItems or maxItems, because Google refuses
    them when they are large.
    """
    config: dict[str, Any] = {"maxOutputTokens": manner.output} if manner.limit else {}
    if call.thinking is not None:
        config["thinkingConfig"] = {"thinkingLevel": call.thinking.value.upper()}
    if call.detail in _RESOLUTIONS and manner.detail:  # the models use high by themselves
        config["mediaResolution"] = _RESOLUTIONS[call.detail]
    if manner.format != WORDS:
        config["responseMimeType"] = "application/json"
    if schema is not None and manner.format == SCHEMA:
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
    service_tier: str | None = None

    @property
    def tier(self) -> Tier:
        """How the call was served. A server that does not say so counts as one that served it at the standard price."""
        return Tier.ECONOMY if (self.service_tier or "").lower() == FLEX else Tier.STANDARD


class Response(msgspec.Struct, rename="camel"):
    """The fields of an answer that are read. All other fields are ignored."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Tokens | None = None
    model_version: str | None = None

    @property
    def text(self) -> str:
        """The text of the first candidate, without the model's thoughts."""
        content = self.candidates[0].content if self.candidates else None
        return "".join(part.text or "" for part in (content.parts or [] if content else []) if not part.thought)


#: Made at import, because msgspec crashes the process if two threads make the first decoder of a type at the same time.
_RESPONSES = msgspec.json.Decoder(Response)


def read_response(body: bytes) -> Response:
    """Reads the answer. Raises msgspec.MsgspecError, ValueError or RecursionError if the body is not an answer."""
    try:
        return _RESPONSES.decode(body)
    # The body may have half a character (\ud800), or a number written as text. This second way of reading accepts both.
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(body), Response, strict=False)
