"""How the fake can be told to treat a call. Combine behaviours with dataclasses.replace(behaviour, delay=0.2, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from .gemini_calls import SeenCall
from .gemini_errors import ApiError, over_quota

Record = dict[str, Any]
Script = Callable[[SeenCall], "Behaviour | None"]

#: Google's messages of the errors that a test asks for by status.
MESSAGES = {
    400: "Request contains an invalid argument.",
    402: "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",
    403: "Your project has been denied access. Please contact support.",
    404: "Requested entity was not found.",
    408: "The request timed out.",
    500: "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """How one call is treated. The timing applies first, then the first of reset, error, garbage and cut that is set."""

    delay: float = 0.0  #: seconds before the answer, on top of the fake's latency
    until: Event | None = None  #: no answer before this is set (or the fake closes)
    thoughts: int = 0  #: thinking tokens, which count towards maxOutputTokens
    reset: bool = False  #: the connection is reset after the request was read
    error: ApiError | None = None
    garbage: bool = False  #: 200 with a body that is not JSON
    cut: bool = False  #: half of the body, then the connection ends
    prompt_block: str = ""  #: promptFeedback.blockReason, and no candidate
    no_candidates: bool = False
    finish: str = "STOP"  #: finishReason; MAX_TOKENS and CONTINUATION send half of the text, all others except STOP send none
    text: Callable[[str], str] | None = None  #: changes the answer's text
    records: Callable[[list[Record]], list[Record]] | None = None  #: changes the answer's records; ignored for other forms

    @property
    def decides(self) -> bool:
        """Whether it sets more than timing. If not, the fake's own rules (blocked, truncates, ...) decide."""
        return replace(self, delay=0.0, until=None, thoughts=0) != Behaviour()


RESET = Behaviour(reset=True)
GARBAGE = Behaviour(garbage=True)
CUT_OFF = Behaviour(cut=True)
OUT_OF_TOKENS = Behaviour(finish="MAX_TOKENS")
NO_CANDIDATES = Behaviour(no_candidates=True)
EMPTY_TEXT = Behaviour(text=lambda _: "")
MALFORMED_JSON = Behaviour(text=lambda text: text[:-1])  #: finishReason is STOP, but the last bracket is missing
OUT_OF_ORDER = Behaviour(records=lambda records: records[::-1])


def slow(seconds: float) -> Behaviour:
    return Behaviour(delay=seconds)


def held(until: Event) -> Behaviour:
    """No answer before `until` is set."""
    return Behaviour(until=until)


def failing(code: int, message: str | None = None) -> Behaviour:
    """An HTTP error with Google's body; a 502 has the front end's HTML."""
    return Behaviour(error=ApiError(code, message or MESSAGES.get(code, "")))


def rate_limited(retry_after: str | None = "3s") -> Behaviour:
    """A 429 of the quota per minute. `retry_after` is the retryDelay of its RetryInfo; None leaves RetryInfo out."""
    return Behaviour(error=over_quota("Minute", retry_after))


def daily_quota(retry_after: str | None = "41s") -> Behaviour:
    """A 429 of the quota per day. Google's answer names a short wait, which does not help."""
    return Behaviour(error=over_quota("Day", retry_after))


def blocked_prompt(reason: str = "SAFETY") -> Behaviour:
    """The prompt is refused for its content: promptFeedback.blockReason."""
    return Behaviour(prompt_block=reason)


def blocked_answer(reason: str = "SAFETY") -> Behaviour:
    """The answer is refused: a candidate with this finishReason and without content."""
    return Behaviour(finish=reason)


def missing_records(*labels: int) -> Behaviour:
    return Behaviour(records=lambda records: [record for record in records if record["index"] not in labels])


def doubled_records(*labels: int) -> Behaviour:
    """The records of `labels` occur twice, the second time at the end."""
    return Behaviour(records=lambda records: records + [record for record in records if record["index"] in labels])


def wrong_index(label: int, said: int) -> Behaviour:
    """The record of `label` has the index `said`."""
    return Behaviour(
        records=lambda records: [{**record, "index": said} if record["index"] == label else record for record in records]
    )


def in_turn(*behaviours: Behaviour | None) -> Script:
    """A script in which the n-th call gets the n-th behaviour. Calls after the last behaviour get none."""
    return lambda call: behaviours[call.order] if call.order < len(behaviours) else None


def always(behaviour: Behaviour) -> Script:
    return lambda _: behaviour


def with_number(numbers: Iterable[int], behaviour: Behaviour) -> Script:
    """A script in which every call with one of these pictures gets `behaviour`."""
    chosen = frozenset(numbers)
    return lambda call: behaviour if chosen.intersection(call.numbers) else None
