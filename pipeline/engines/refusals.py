"""What a model's refusal of a request is about, by its words. Every server and every vendor words it differently.

CAUSES is the table of causes. The first row whose words occur in the message decides. A message that no row knows is OPEN: a
picture may be at fault, or the way of asking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from pipeline.types import Finish, ItemCode

REFUSING = frozenset({400, 413, 415, 422})  #: statuses of a refusal that is about the request


class Why(StrEnum):
    """What a refusal is about."""

    ACCOUNT = "account"  #: the key, the bill or the region, so every call is refused
    ADDRESS = "address"  #: another status than those in REFUSING, such as 301 or 405
    MODEL = "model"  #: there is no such model
    BLIND = "blind"  #: the model takes no images
    AWAY = "away"  #: the server is a proxy, and the model behind it does not answer
    BLOCKED = "blocked"  #: the content of the call
    TOO_MANY = "too many"  #: the number of pictures
    LIMIT_NAME = "limit name"  #: the name of the field that limits the output
    OUTPUT = "output"  #: the value of that field
    TOO_LONG = "too long"  #: the size of the input
    SYSTEM = "system"  #: the system role
    SCHEMA = "schema"  #: this JSON Schema
    FORMAT = "format"  #: any JSON Schema, or JSON mode
    DETAIL = "detail"  #: the field for how closely the model looks at pictures
    STREAM = "stream"  #: the field for streaming
    FIELD = "field"  #: another field that no picture can cause
    PICTURE = "picture"  #: one of the pictures
    OPEN = "open"  #: the words do not say


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_IMAGES = r"images?(?:\(s\))?"
_ONE = r"(?:\d+|one|a single|single)"
_OUTPUT = r"max_?(?:completion_|new_|output_)?tokens|maxOutputTokens|max_gen_len|num_predict"

CAUSES: tuple[tuple[Why, re.Pattern[str]], ...] = (
    (
        Why.ACCOUNT,
        _words(
            r"(?:invalid|incorrect|wrong) api[ _]?key",
            r"api[ _]?key.{0,20}(?:not valid|expired|invalid|missing)",
            r"location is not supported",
            r"insufficient_quota",
            r"no_db_connection",  # LiteLLM without a database, to a key that is not its master key
        ),
    ),
    (
        Why.MODEL,
        _words(
            r"invalid model name",
            r"model_not_found",
            r"(?:no such|unknown) model",
            r"LLM Provider NOT provided",
            r"not a valid model",
            r"model\W{1,3}[\w./:-]+\W{1,3}(?:was )?(?:not found|does not exist|is not (?:available|loaded))",
        ),
    ),
    (
        Why.BLIND,
        _words(
            r"image input is not supported",
            r"at most 0 image",  # vLLM with a model that reads text alone
            r"not support (?:image|vision|multimodal)",
            r"not a (?:vision|multimodal)",
            r"no endpoints found that support image",
        ),
    ),
    (
        Why.TOO_MANY,
        _words(
            rf"(?:at most|up to|maximum (?:of )?|only|fewer than|exactly|supports?|accepts?|allows?|takes?|expects?) {_ONE} {_IMAGES}",
            rf"{_ONE} {_IMAGES} (?:per|only|at a time|is (?:allowed|supported))",
            rf"(?:too many|more than {_ONE}) {_IMAGES}",
            rf"(?:multiple|several) {_IMAGES}.{{0,40}}(?:not|un)",
            rf"(?:not|un)\w*.{{0,20}} (?:multiple|several) {_IMAGES}",
            r"(?:number|count|amount) of images",
            r"limit.mm.per.prompt",
            r"multi-?image",
        ),
    ),
    (
        Why.LIMIT_NAME,
        _words(
            rf"(?:{_OUTPUT})\W.{{0,60}}(?:unsupported|not supported|unrecogni[sz]ed|not permitted|unknown|extra|use ')",
            rf"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|extra|not permitted).{{0,60}}(?:{_OUTPUT})",
        ),
    ),
    (Why.OUTPUT, _words(_OUTPUT, r"in the completion", r"for the completion", r"completion tokens", r"output tokens")),
    (
        Why.TOO_LONG,
        _words(
            r"context.{0,20}(?:length|size|window|limit)",
            r"exceed_context",
            r"too many tokens",
            r"too large",
            r"token count",
            r"(?:prompt|input|request|payload|body|message)s? (?:is |are )?too (?:long|big)",
            r"tokens?.{0,40}exceed",
            r"exceed.{0,40}tokens?",
        ),
    ),
    (
        Why.SYSTEM,
        _words(
            r"system[ _]?(?:role|message|prompt|instruction)s?\b",
            r"developer instruction",
            r"roles? must alternate",
            r"only user and assistant",
            r"(?:unknown|invalid|unexpected|unsupported)[\w ]{0,20} role",
            r"role\W{1,4}system",
            r"'user' or 'assistant'",
        ),
    ),
    (
        Why.SCHEMA,
        _words(
            r"too many states",
            r"grammar",
            r"invalid[\w ]{0,20} schema",
            r"schema.{0,80}(?:invalid|not valid|too |complex|depth|deep|nest|produces|keyword|propert)",
            r"(?:in|of) (?:the |your )?(?:\w+ )?schema",
            r"additionalProperties",
            r"\$(?:ref|defs)\b",
            r"unsupported (?:schema|keyword)",
        ),
    ),
    (
        Why.FORMAT,
        _words(
            r"response.?format",
            r"json.?schema",
            r"json.?object",
            r"json.?mode",
            r"structured.?output",
            r"response.?(?:mime.?type|schema)",
            r"guided",
            r"schema",
        ),
    ),
    (Why.DETAIL, _words(r"media.?resolution", r"image_url\W+detail", r"\bdetail['\"`]? (?:\w+ )?(?:is|not|un|must)")),
    # The quotes matter, because decoders of pictures speak of a "broken data stream".
    (Why.STREAM, _words(r"['\"`]stream['\"`]", r"stream(?:ing)? (?:mode|parameter|option|request)", r"only supports? stream")),
    (
        Why.FIELD,
        _words(
            r"unknown name",
            r"cannot find field",
            r"unrecogni[sz]ed",
            r"unexpected (?:keyword|field|argument)",
            r"extra (?:fields|inputs)",
            r"unknown (?:field|parameter|argument)",
            r"thinking.?(?:level|config|budget|is not)",
        ),
    ),
    (Why.PICTURE, _words(r"image", r"picture", r"photo", r"base64", r"mime.?type", r"media type", r"decod")),
)

#: Words of a proxy whose model does not answer. They count only in an HTTP 500, because a 400 is the model's own.
_AWAY = _words(
    r"connection (?:error|refused|reset|aborted|closed)",
    r"connect(?:ion)? (?:call )?failed",
    r"(?:cannot|could not|failed to) connect",
    r"APIConnectionError",
    r"ConnectError",
    r"server disconnected",
    r"no healthy",
    r"no deployments? available",
    r"unreachable",
    r"name or service not known",
    r"upstream",
)
_FILTER = _words(r"content[_ ]?(?:policy|filter|management)", r"moderation", r"safety")

#: What changes how a request is asked. No picture can cause these.
OF_MANNER = frozenset({Why.LIMIT_NAME, Why.OUTPUT, Why.SYSTEM, Why.SCHEMA, Why.FORMAT, Why.DETAIL, Why.STREAM})
#: What fails the whole call: neither a picture nor another manner can mend it.
FINAL = frozenset({Why.ACCOUNT, Why.ADDRESS, Why.MODEL, Why.BLIND, Why.FIELD})
#: What fewer pictures in the call may mend.
OF_SIZE = frozenset({Why.TOO_MANY, Why.TOO_LONG})
#: What a message of HTTP 500 can be about. Any other message of a 500 says nothing about the request.
OF_FAULT = frozenset({Why.AWAY, Why.MODEL, Why.BLIND, Why.TOO_MANY, Why.SYSTEM, Why.SCHEMA})


class Refusal(Exception):
    """The model refuses a request."""

    def __init__(self, text: str, *, why: Why, said: str = "") -> None:
        super().__init__(text)
        self.why = why
        self.said = said  #: the model's words, for the numbers in them


class BadRequest(Refusal):
    """The way of asking is refused, or the words leave open what is."""


class Unreadable(Refusal):
    """The pictures are refused: one of them, or all of them together."""

    @property
    def finish(self) -> Finish:
        return Finish.BLOCKED if self.why is Why.BLOCKED else Finish.UNREADABLE

    @property
    def code(self) -> ItemCode:
        return ItemCode.SAFETY_BLOCKED if self.why is Why.BLOCKED else ItemCode.MODEL_REFUSED


def why(status: int, said: str) -> Why:
    """What a refusal is about. `said`: all words of the error."""
    if status >= 500 and _AWAY.search(said):
        return Why.AWAY
    found = next((cause for cause, words in CAUSES if words.search(said)), Why.OPEN)
    if status >= 500:
        return found if found in OF_FAULT else Why.OPEN
    if status not in REFUSING and found not in {Why.ACCOUNT, Why.MODEL, Why.BLIND}:
        return Why.ADDRESS
    if found not in (Why.ACCOUNT, Why.MODEL, Why.BLIND) and _FILTER.search(said):
        return Why.BLOCKED
    if status == 413 and found in (Why.PICTURE, Why.OPEN):
        return Why.TOO_LONG
    return found


def refusal(status: int, text: str, said: str) -> Refusal:
    """The exception for a refusal that is about the request. `text`: for the job's owner; `said`: all words of the error."""
    cause = why(status, said)
    kind = Unreadable if cause in {Why.BLOCKED, Why.PICTURE, *OF_SIZE} else BadRequest
    return kind(text, why=cause, said=said)


_NUMBER = r"(\d+|one|a single|single)"
_MOST = (
    rf"fewer than {_NUMBER} {_IMAGES}",
    rf"(?:at most|up to|only|exactly|maximum (?:of )?|limit\w*(?: of| to| is)?|supports?|accepts?|allows?|takes?) ?{_NUMBER} {_IMAGES}",
    rf"{_NUMBER} {_IMAGES} (?:per|only|at a time|is (?:allowed|supported))",
    rf"more than {_NUMBER} {_IMAGES}",
    r"limit.mm.per.prompt.{0,40}image\D{0,4}(\d+)",
    r"image\W{1,4}(\d+).{0,40}limit.mm.per.prompt",
    rf"{_IMAGES}\b.{{0,60}}(?:at most|maximum|max|limit|allowed|up to|<=|>)\D{{0,12}}(\d+)",
    rf"(?:maximum|max|limit)\D{{0,40}}{_NUMBER} {_IMAGES}",
    rf"(multiple|several|multi)[- ]?{_IMAGES}",
)


def most_pictures(said: str) -> int | None:
    """How many pictures a call may have, if a refusal for TOO_MANY says so."""
    for pattern in _MOST:
        if found := re.search(pattern, said, re.IGNORECASE):
            number = next(group for group in found.groups() if group)
            most = int(number) if number.isdigit() else 1
            return max(most - 1 if pattern.startswith("fewer") else most, 1)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """The token counts in a refusal for OUTPUT or TOO_LONG. None: it does not say."""

    context: int | None = None  #: tokens of input and output together
    input: int | None = None  #: tokens of the call's input
    output: int | None = None  #: most output tokens


_CONTEXT = re.compile(
    r"(?:context (?:length|window|size)|max_(?:model_len|total_tokens|seq_len))[^\d]{0,50}?(\d{3,7})(?!\.\d)", re.IGNORECASE
)
_TOTAL = re.compile(r"max_new_tokens`? must be <= (\d+)", re.IGNORECASE)
_INPUT = (
    re.compile(r"(\d+)\W{0,3}(?:tokens )?(?:in|from|of) (?:the )?(?:input )?(?:messages?|prompt|input)", re.IGNORECASE),
    re.compile(r"(\d+)\W{0,3}(?:input|prompt|`?inputs`?)\W{0,3} ?tokens", re.IGNORECASE),
    re.compile(r"(\d+)\W{1,3}inputs`? tokens", re.IGNORECASE),
    re.compile(r"(?:input|prompt)[\w ]{0,30}\D{0,4}(\d+) tokens", re.IGNORECASE),
)
_HIGHEST = re.compile(
    r"(?:at most|less than or equal to|<=|up to|maximum (?:allowed )?(?:value|of|is)|supports?(?: only)?|range[^\[]{0,40}\[\d+,|> )"
    r"\W{0,4}(\d{2,7})",
    re.IGNORECASE,
)
_EXCLUSIVE = re.compile(r"to (\d{2,7}) \(exclusive\)")


def room(said: str, asked: int) -> Room:
    """Reads the token counts. `asked`: the output limit that was sent, which a message often repeats."""
    total = _TOTAL.search(said) or _CONTEXT.search(said)
    given = next((found for pattern in _INPUT if (found := pattern.search(said))), None)
    context, tokens = (int(total[1]) if total else None), (int(given[1]) if given else None)
    exclusive = _EXCLUSIVE.search(said)
    highest = [int(exclusive[1]) - 1] if exclusive else [int(number) for number in _HIGHEST.findall(said)]
    return Room(
        context=context,
        input=tokens,
        output=next((number for number in highest if 0 < number < asked), None) if not total else None,
    )
