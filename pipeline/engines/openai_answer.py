"""Reads what an OpenAI-compatible server answers with: one JSON document, or events although no stream was asked for.

Servers differ in where they put the text, in the names of finish reasons, and in what `usage` holds. Only the finish reasons in CUT
and BLOCKED mean that an answer is not whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from pipeline.engines.reading import Read, read_answer
from pipeline.ports import Cause, ModelFault, ModelUnavailable
from pipeline.types import Answer, Call, Finish, Form, ItemCode, Tier

AGAIN_SECONDS = 15.0
FLEX = "flex"  #: OpenAI's name of the tier `economy`
MOST_TOKENS = 10**9  #: a larger count in `usage` is not believed
CUT = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length", "model_length"}
    | {"token_limit", "context_length", "context_window_exceeded", "model_context_window_exceeded", "incomplete"}
)
BLOCKED = frozenset(
    {"content_filter", "content_filtered", "contentfilter", "safety", "image_safety", "blocked", "blocklist", "spii"}
    | {"prohibited_content", "recitation", "refusal", "guardrail_intervened", "moderation", "sensitive"}
)
#: The server gave up in the middle of the answer.
BROKEN = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "network_error"})
_THOUGHTS = frozenset({"thinking", "thought", "reasoning", "reasoning_text", "redacted_thinking"})


def read_document(content_type: str, body: bytes) -> Any:
    """The completion in a response's body. The events of a stream are put together. Raises ModelUnavailable."""
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if content_type.startswith("text/event-stream") or body.startswith((b"data:", b"event:", b": ")):
        return _joined(body)
    return _json(body)


def read_completion(call: Call, document: Any, *, schema: Mapping[str, Any] | None) -> tuple[Answer, bool]:
    """Reads the refusal and the finish reason, then the text. Also says whether records fit the `schema` that was sent.

    Raises ModelFault for an answer that can't be used.
    """
    try:
        choice = document["choices"][0]
        message = choice.get("message")
        message = message if isinstance(message, dict) else {"content": choice.get("text")}
        finish = str(choice.get("finish_reason") or "").strip().lower().replace("-", "_")
    except (LookupError, TypeError, AttributeError) as error:
        raise ModelFault("the answer is no chat completion") from error
    usage = document.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    answered = Answer(
        finish=Finish.COMPLETE,
        input_tokens=_tokens(counts.get("prompt_tokens")),
        output_tokens=_tokens(counts.get("completion_tokens")),
        model_version=str(document.get("model") or "")[:200],
        tier=Tier.ECONOMY if document.get("service_tier") == FLEX else Tier.STANDARD,
    )
    if finish in BLOCKED or message.get("refusal"):
        detail = finish if finish in BLOCKED else "refusal"
        return replace(answered, finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail=detail), True
    if finish in CUT:
        return replace(answered, finish=Finish.TRUNCATED, detail=finish), True
    if finish in BROKEN:
        raise ModelFault(f"the answer ended with {finish}")
    read = _read(call, message, schema)
    if not read.text.strip():
        raise ModelFault(f"the answer ended with {finish or 'no finish reason'} and no text")
    return replace(answered, text=read.text), read.fits


def _read(call: Call, message: dict[str, Any], schema: Mapping[str, Any] | None) -> Read:
    """The answer in a message. Thoughts hold the answer only if there is none anywhere else, and never for TEXT."""
    content = _text(message.get("content"))
    if call.form is Form.TEXT:
        return read_answer(call, [content], schema=schema)
    texts = [content, *_arguments(message)]
    if not any(text.strip() for text in texts):
        texts += [_text(message.get(name)) for name in ("reasoning_content", "reasoning", "thinking")]
    return read_answer(call, [text for text in texts if text.strip()] or [""], schema=schema)


def _text(content: Any) -> str:
    """The text of a message's content, which is a text or a list of parts. Parts that hold thoughts are dropped."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_text, content))
    if isinstance(content, dict) and content.get("type") not in _THOUGHTS and not content.get("thought"):
        return _text(content.get("text", content.get("value", content.get("content"))))
    return ""


def _arguments(message: dict[str, Any]) -> Iterator[str]:
    """The arguments of the only tool call, because some servers answer a schema with a call of a tool that has its name."""
    calls = message.get("tool_calls")
    functions = [one.get("function") for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
    functions = functions or [message.get("function_call")]
    if len(functions) == 1 and isinstance(functions[0], dict):
        arguments = functions[0].get("arguments")
        yield arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""


def _tokens(value: Any) -> int:
    """A count of tokens, which some servers write as a text. 0 if it is none."""
    try:
        count = int(float(value)) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return 0
    return count if 0 < count <= MOST_TOKENS else 0


def _json(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:  # half a character (\ud800) in a text is no reason to lose the whole answer
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _garbled("what came is no JSON") from error


def _garbled(said: str) -> ModelUnavailable:
    return ModelUnavailable(said, retry_after=AGAIN_SECONDS, cause=Cause.GARBLED)


def _joined(body: bytes) -> Any:
    """The completion that the events of a stream make together."""
    message: dict[str, Any] = {}
    tools: dict[int, str] = {}
    whole: dict[str, Any] = {"choices": [{"message": message}]}
    ended = False
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            ended = True
            break
        chunk = _json(data)
        if not isinstance(chunk, dict):
            raise _garbled("an event of the stream is no object")
        if chunk.get("error"):
            return chunk
        whole |= {name: chunk[name] for name in ("model", "usage", "service_tier") if chunk.get(name)}
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        _add(message, tools, choice.get("delta") or choice.get("message"))
        if choice.get("finish_reason"):
            whole["choices"][0]["finish_reason"] = choice["finish_reason"]
            ended = True
    if not ended:
        raise _garbled("the stream ended before the answer did")
    if tools:
        message["tool_calls"] = [{"function": {"arguments": arguments}} for arguments in tools.values()]
    return whole


def _add(message: dict[str, Any], tools: dict[int, str], delta: Any) -> None:
    if not isinstance(delta, dict):
        return
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        if delta.get(name):
            message[name] = message.get(name, "") + _text(delta[name])
    for place, one in enumerate(delta.get("tool_calls") or ()):
        function = one.get("function") if isinstance(one, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            at = one["index"] if isinstance(one.get("index"), int) else place
            tools[at] = tools.get(at, "") + function["arguments"]
