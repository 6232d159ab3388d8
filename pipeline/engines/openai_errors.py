"""What an HTTP error of an OpenAI-compatible server means. Each server words its errors in its own way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.engines.refusals import BadRequest, Unreadable, Why, refusal
from pipeline.engines.setup_faults import Fault, fault_of
from pipeline.engines.shedding import shed
from pipeline.ports import WAITS, Cause, ModelFault, ModelUnavailable
from pipeline.types import Tier

__all__ = ["BadRequest", "Unreadable", "meaning"]

OVERLOAD_SECONDS = 15.0
QUOTA_SECONDS = 20.0  #: the pause after a 429 that names no time
PERSON_SECONDS = 30.0  #: between two tries while a person has to fix a key or pay a bill
AWAY_SECONDS = 5.0  #: the wait while a gateway answers that it does not reach the model
ADDRESS = "OPENAI_BASE_URL"  #: the setting with the server's address
MOST_SHOWN = 300  #: characters of the server's message that are shown, because it may quote the request
_KEY = re.compile(r"(?:sk|key)-[\w*-]{6,}")
_LIMIT = re.compile(r"rate.?limit|quota|billing|tokens per|requests per", re.IGNORECASE)  #: words of a 429 for our own limits
_TAG = re.compile(r"<[^>]{0,200}>")
_FIRST = ("code", "type", "param", "message", "detail", "error")  #: members of an error that are read before the others
_LEFT_OUT = frozenset({"input", "ctx", "url", "object"})  #: members that say nothing, or quote the request
MOST_READ = 4_000  #: characters of the server's words that are looked at
DEEPEST = 8  #: levels of an error's JSON that are read


def meaning(status: int, retry_after: str | None, body: bytes, *, tier: Tier = Tier.STANDARD) -> Exception:
    """Returns the exception to raise: ModelUnavailable, ModelFault, BadRequest or Unreadable.

    `tier`: the tier that the call asked for. In `economy`, a server without capacity answers 503, or 429 with no word of a limit.
    """
    words = _words_of(body)
    said = words[:MOST_SHOWN].strip()
    text = f"HTTP {status} {said}".strip()
    if tier is Tier.ECONOMY and (status == 503 or (status == 429 and not _LIMIT.search(words))):
        return shed(text, status=status, retry_after=_seconds(retry_after))
    if status == 429:
        return _quota(said, retry_after)
    if status in {408, 425, 502, 503, 504, 529}:
        return ModelUnavailable(text, retry_after=_seconds(retry_after) or OVERLOAD_SECONDS, status=status)
    if fault := fault_of(status, words):
        notice = f"The model can't be asked ({text}). {_REMEDY[fault]}{WAITS}"
        return ModelUnavailable(text, retry_after=PERSON_SECONDS, notice=notice, cause=fault.cause, status=status)
    refused = refusal(status, f"The model refused the request ({text})", words)
    if refused.why is Why.BLIND:
        notice = f"The model takes no images ({text}). Set MODEL to one that does.{WAITS}"
        return ModelUnavailable(text, retry_after=PERSON_SECONDS, notice=notice, cause=Cause.MODEL, status=status)
    if refused.why is Why.AWAY:
        notice = f"The model can't be asked: the server at {ADDRESS} does not reach it ({text}). Start the model there.{WAITS}"
        return ModelUnavailable(text, retry_after=AWAY_SECONDS, notice=notice, cause=Cause.AWAY, status=status)
    if status >= 500 and refused.why is Why.OPEN:
        return ModelFault(text)
    return refused


#: How to mend what stops the calls until a person acts.
_REMEDY = {
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
