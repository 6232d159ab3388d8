"""Helpers to call the fake Gemini. They use the real SDK with the service's settings, and pack calls as the service does."""

from __future__ import annotations

from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from .gemini import FakeGemini
from .gemini_pictures import NATIVE, numbered_picture

MODEL = "gemini-3.5-flash-lite"
RECORDS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"index": {"type": "integer"}, "result": {"type": "string"}},
        "required": ["index", "result"],
    },
}


def client_of(fake: FakeGemini, *, key: str | None = None, timeout: float = 20.0, version: str = "v1beta") -> genai.Client:
    return genai.Client(
        api_key=key or fake.key,
        http_options=types.HttpOptions(
            base_url=fake.base_url,
            api_version=version,
            timeout=int(timeout * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )


def packed(*numbers: int, kind: str = "PNG") -> list[Any]:
    """A prompt, then each numbered picture under its label."""
    parts: list[Any] = ["What is it?"]
    for label, number in enumerate(numbers, start=1):
        picture = types.Part.from_bytes(data=numbered_picture(number, format=kind), mime_type=NATIVE[kind])
        parts += [f"Image {label}:", picture]
    return parts


def config(form: str = "text", **more: Any) -> types.GenerateContentConfig:
    settings: dict[str, Any] = {"max_output_tokens": 8192}
    if form != "text":
        settings["response_mime_type"] = "application/json"
    if form == "records":
        settings["response_json_schema"] = RECORDS
    return types.GenerateContentConfig(**{**settings, **more})


def ask(client: genai.Client, *numbers: int, form: str = "text", **more: Any) -> types.GenerateContentResponse:
    return client.models.generate_content(model=MODEL, contents=packed(*numbers), config=config(form, **more))


def refusal(client: genai.Client, contents: Any = "hello", model: str = MODEL, **more: Any) -> errors.ClientError:
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=model, contents=contents, config=types.GenerateContentConfig(**more))
    return caught.value


def finish_of(response: types.GenerateContentResponse) -> str:
    assert response.candidates
    assert response.candidates[0].finish_reason
    return response.candidates[0].finish_reason.value
