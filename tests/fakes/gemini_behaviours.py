"""What the fake can be told to do to a call. Values: combine them with dataclasses.replace(behaviour, delay=0.2, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from .gemini_calls import SeenCall
from .gemini_errors import ApiError, over_quota

Record = dict[str, Any]
Script = Callable[[SeenCall], "Behaviour | None"]

#: Google's own words for the errors that a test asks for by number.
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
    """What becomes of one call. Timing comes first, then the first of reset, error, garbage and cut that is set."""

    delay: float = 0.0  #: seconds before the answer, on top of the fake's latency
    until: Event | None = None  #: no answer before this is set (or the fake closes)
    thoughts: int = 0  #: thinking tokens, spent from maxOutputTokens
    reset: bool = False  #: the connection is reset after the request was read
    error: ApiError | None = None
    garbage: bool = False  #: 200 with a body that is no JSON
    cut: bool = False  #: half the body, then the connection ends
    prompt_block: str = ""  #: promptFeedback.blockReason, and no candidate
    no_candidates: bool = False
    finish: str = "STOP"  #: MAX_TOKENS and CONTINUATION give half the text, any other reason none
    text: Callable[[str], str] | None = None  #: changes the answer's text
    records: Callable[[list[Record]], list[Record]] | None = None  #: changes the answer's records; other forms stay

    @property
    def decides(self) -> bool:
        """Whether it sets more than timing; if not, the fake's own rules (blocked, truncates, ...) decide."""
        return replace(self, delay=0.0, until=None, thoughts=0) != Behaviour()


RESET = Behaviour(reset=True)
GARBAGE = Behaviour(garbage=True)
CUT_OFF = Behaviour(cut=True)
OUT_OF_TOKENS = Behaviour(finish="MAX_TOKENS")
NO_CANDIDATES = Behaviour(no_candidates=True)
EMPTY_TEXT = Behaviour(text=lambda _: "")
MALFORMED_JSON = Behaviour(text=lambda text: text[:-1])  #: finished with STOP, but the last bracket is missing
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
    """A 429 of the quota a minute; `retry_after` is its RetryInfo's retryDelay, None leaves that out."""
    return Behaviour(error=over_quota("Minute", retry_after))


def daily_quota(retry_after: str | None = "41s") -> Behaviour:
    """A 429 of the quota a day. Users see it name a short wait all the same, which does not help."""
    return Behaviour(error=over_quota("Day", retry_after))


def blocked_prompt(reason: str = "SAFETY") -> Behaviour:
    """Refused for its content before any answer: promptFeedback.blockReason."""
    return Behaviour(prompt_block=reason)


def blocked_answer(reason: str = "SAFETY") -> Behaviour:
    """Refused while answering: a candidate with this finishReason and no content."""
    return Behaviour(finish=reason)


def missing_records(*labels: int) -> Behaviour:
    return Behaviour(records=lambda records: [record for record in records if record["index"] not in labels])


def doubled_records(*labels: int) -> Behaviour:
    """The records of `labels` come twice, the second time at the end."""
    return Behaviour(records=lambda records: records + [record for record in records if record["index"] in labels])


def wrong_index(label: int, said: int) -> Behaviour:
    """The record of `label` claims to be of `said`."""
    return Behaviour(
        records=lambda records: [{**record, "index": said} if record["index"] == label else record for record in records]
    )


def in_turn(*behaviours: Behaviour | None) -> Script:
    """A script: the first call that arrives gets the first, and so on; those after the last get none."""
    return lambda call: behaviours[call.order] if call.order < len(behaviours) else None


def always(behaviour: Behaviour) -> Script:
    return lambda _: behaviour


def with_number(numbers: Iterable[int], behaviour: Behaviour) -> Script:
    """A script: every call that shows one of these pictures gets `behaviour`."""
    chosen = frozenset(numbers)
    return lambda call: behaviour if chosen.intersection(call.numbers) else None
