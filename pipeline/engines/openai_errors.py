"""What an HTTP error of an OpenAI-compatible server means. Each server words its errors in its own way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.engines.refusals import Fault, fault_of
from pipeline.ports import WAITS, Cause, ModelFault, ModelUnavailable
from pipeline.types import Finish, ItemCode

OVERLOAD_SECONDS = 15.0
QUOTA_SECONDS = 20.0  #: the pause after a 429 that names no time
PERSON_SECONDS = 30.0  #: between two tries while a person has to fix a key or pay a bill
AWAY_SECONDS = 5.0  #: the wait while a gateway answers that it does not reach the model
ADDRESS = "OPENAI_BASE_URL"  #: the setting with the server's address
MOST_SHOWN = 300  #: characters of the server's message that are shown, because it may quote the request
_KEY = re.compile(r"(?:sk|key)-[\w*-]{6,}")
_CONTEXT = re.compile(
    r"context.{0,20}(?:length|size|window|limit)|exceed_context|too many (?:images|tokens)|too large", re.IGNORECASE
)
_PICTURE = re.compile(r"image", re.IGNORECASE)
_NO_EYES = re.compile(
    r"image input is not supported|not support (?:image|vision|multimodal)|not a (?:vision|multimodal)", re.IGNORECASE
)
#: A gateway's own words for a model that it does not reach.
_NOT_THERE = re.compile(
    r"APIConnectionError|connection error|connection refused|cannot connect to host|all connection attempts failed"
    r"|name or service not known|no healthy (?:upstream|deployment)",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content[_ ]?(?:policy|filter|management)|moderation|safety", re.IGNORECASE)


class BadRequest(Exception):
    """The server refuses the request, and the pictures are not the reason."""

    def is_about(self, *names: str) -> bool:
        return any(name in str(self).lower() for name in names)


class Unreadable(Exception):
    """The server refuses the request because of a picture, and does not say which one."""

    def __init__(self, message: str, *, finish: Finish = Finish.UNREADABLE, code: ItemCode = ItemCode.MODEL_REFUSED) -> None:
        super().__init__(message)
        self.finish = finish
        self.code = code


def meaning(status: int, retry_after: str | None, body: bytes) -> Exception:
    """Returns the exception to raise: ModelUnavailable, ModelFault, BadRequest or Unreadable."""
    said = _said(body)
    text = f"HTTP {status} {said}".strip()
    if status == 429:
        return _quota(said, retry_after)
    if status in {408, 425, 502, 503, 504, 529}:
        return ModelUnavailable(text, retry_after=_seconds(retry_after) or OVERLOAD_SECONDS, status=status)
    if fault := fault_of(status, said):
        notice = f"The model can't be asked ({text}). {_TODO[fault]}{WAITS}"
        return ModelUnavailable(text, retry_after=PERSON_SECONDS, notice=notice, cause=fault.cause, status=status)
    if status >= 500 and _NOT_THERE.search(said):
        notice = f"The model can't be asked: the server at {ADDRESS} does not reach it ({text}). Start the model there.{WAITS}"
        return ModelUnavailable(text, retry_after=AWAY_SECONDS, notice=notice, cause=Cause.AWAY, status=status)
    if _NO_EYES.search(said):
        notice = f"The model takes no images ({text}). Set MODEL to one that does.{WAITS}"
        return ModelUnavailable(text, retry_after=PERSON_SECONDS, notice=notice, cause=Cause.MODEL, status=status)
    if status >= 500:
        return ModelFault(text)
    if _FILTER.search(said):
        return Unreadable(text, finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED)
    # The format is checked before the pictures, because some servers mention images in their "response_format" errors.
    refused = BadRequest(f"The model refused the request ({text})")
    if refused.is_about("response_format", "max_tokens", "json_schema"):
        return refused
    if status == 413 or _CONTEXT.search(said) or _PICTURE.search(said):
        return Unreadable(text)
    return refused


#: How to mend what stops the calls until a person acts.
_TODO = {
    Fault.KEY: "Set OPENAI_API_KEY to a key that the server accepts.",
    Fault.RIGHTS: "Look at what OPENAI_API_KEY may do, and at MODEL.",
    Fault.CREDIT: "Pay for the account of OPENAI_API_KEY, or use another.",
    Fault.REGION: f"Ask from a region that the server allows, or set {ADDRESS} to another server.",
    Fault.MODEL: "Set MODEL to a model that the server has, or load it there.",
    Fault.ADDRESS: f"Correct {ADDRESS} (for most servers it ends in /v1).",
}


def _quota(said: str, retry_after: str | None) -> ModelUnavailable:
    if "insufficient_quota" in said or "billing" in said.lower():
        notice = f"The model can't be asked (HTTP 429 {said}). Pay for the account of OPENAI_API_KEY, or use another.{WAITS}"
        return ModelUnavailable("no credit", retry_after=PERSON_SECONDS, notice=notice, cause=Cause.ACCOUNT, status=429)
    return ModelUnavailable("rate limited", retry_after=_seconds(retry_after) or QUOTA_SECONDS, cause=Cause.RATE, status=429)


def _seconds(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After header asks for. The header holds seconds or a date."""
    if not retry_after:
        return None
    try:
        return min(max(float(retry_after), 0.0), 86_400.0)
    except ValueError:
        pass
    try:
        from datetime import UTC, datetime

        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def _said(body: bytes) -> str:
    """The error's code and message, wherever the server puts them. Text that looks like an API key is removed."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    words = dict.fromkeys(str(word) for word in _words(document) if word not in (None, ""))
    return _KEY.sub("…", " ".join(words))[:MOST_SHOWN].strip()


def _words(document: Any) -> Iterator[Any]:
    error = document.get("error", document) if isinstance(document, dict) else document
    if not isinstance(error, dict):
        yield error if isinstance(error, str) else None
        return
    for name in ("code", "type", "param", "message", "detail"):
        value = error.get(name)
        yield value if isinstance(value, str) else json.dumps(value) if value and name == "detail" else None
