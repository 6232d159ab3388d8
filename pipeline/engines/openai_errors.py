"""What an HTTP error of an OpenAI-compatible server means. Each server words its errors in its own way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.engines.refusals import BadRequest, Unreadable, Why, refusal
from pipeline.ports import Cause, ModelFault, ModelUnavailable

__all__ = ["BadRequest", "Unreadable", "meaning"]

OVERLOAD_SECONDS = 15.0
QUOTA_SECONDS = 20.0  #: the pause after a 429 that names no time
PERSON_SECONDS = 30.0  #: between two tries while a person has to fix a key or pay a bill
MOST_SHOWN = 300  #: characters of the server's message that are shown, because it may quote the request
_KEY = re.compile(r"(?:sk|key)-[\w*-]{6,}")
_TAG = re.compile(r"<[^>]{0,200}>")
_FIRST = ("code", "type", "param", "message", "detail", "error")  #: members of an error that are read before the others
_LEFT_OUT = frozenset({"input", "ctx", "url", "object"})  #: members that say nothing, or quote the request
MOST_READ = 4_000  #: characters of the server's words that are looked at
DEEPEST = 8  #: levels of an error's JSON that are read


def meaning(status: int, retry_after: str | None, body: bytes) -> Exception:
    """Returns the exception to raise: ModelUnavailable, ModelFault, BadRequest or Unreadable."""
    words = _words_of(body)
    said = words[:MOST_SHOWN].strip()
    text = f"HTTP {status} {said}".strip()
    if status == 429:
        return _quota(said, retry_after)
    if status in {408, 425, 502, 503, 504, 529}:
        return ModelUnavailable(text, retry_after=_seconds(retry_after) or OVERLOAD_SECONDS, status=status)
    if status in {401, 402, 403, 404}:
        cause = Cause.MODEL if status == 404 else Cause.ACCOUNT
        return _waiting(f"The model can't be asked ({text}).", text, cause, status)
    refused = refusal(status, f"The model refused the request ({text})", words)
    if refused.why in {Why.ACCOUNT, Why.MODEL}:
        cause = Cause.MODEL if refused.why is Why.MODEL else Cause.ACCOUNT
        return _waiting(f"The model can't be asked ({text}).", text, cause, status)
    if refused.why is Why.BLIND:
        return _waiting(f"The model takes no images ({text}).", text, Cause.MODEL, status)
    if refused.why is Why.AWAY:
        return ModelUnavailable(text, retry_after=OVERLOAD_SECONDS, status=status)
    if status >= 500 and refused.why is Why.OPEN:
        return ModelFault(text)
    return refused


def _waiting(notice: str, text: str, cause: Cause, status: int) -> ModelUnavailable:
    """The exception for what a person has to mend."""
    notice = f"{notice} The job waits until this is mended."
    return ModelUnavailable(text, retry_after=PERSON_SECONDS, notice=notice, cause=cause, status=status)


def _quota(said: str, retry_after: str | None) -> ModelUnavailable:
    if "insufficient_quota" in said or "billing" in said.lower():
        notice = f"The model can't be asked (HTTP 429 {said}). The job waits until this is mended."
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


def _words_of(body: bytes) -> str:
    """All words of an error, wherever the server puts them. Text that looks like an API key is removed."""
    try:
        found = list(_words(json.loads(body), 0))
    except (ValueError, RecursionError):  # a page, or a plain text
        found = [" ".join(_TAG.sub(" ", body[: 4 * MOST_READ].decode("utf-8", "replace")).split())]
    return _KEY.sub("…", " ".join(dict.fromkeys(word for word in found if word)))[:MOST_READ].strip()


def _words(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:MOST_READ]
    elif isinstance(value, list) and depth < DEEPEST:
        for part in value:
            yield from _words(part, depth + 1)
    elif isinstance(value, dict) and depth < DEEPEST:
        for name in (*_FIRST, *(name for name in value if name not in _FIRST)):
            if name in value and name not in _LEFT_OUT:
                yield from _words(value[name], depth + 1)
