"""Fields that a request has and this service does not know: which field each was meant to be. Pure.

An unknown field fails no request, because existing clients send some. The job's warnings name it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence

from pipeline.request.fields import FIELDS

MOST_NAMED = 10  #: how many unknown fields a warning names
_LONGEST_NAME = 40  #: characters; longer names are cut
_NEAR = 0.8  #: how alike two names must be, from 0 to 1

#: Names that other services use, as `_plain` writes them → our field.
_MEANT = {
    "inputMethod": ("inputtype", "method", "sourcetype", "imagetype", "imageformat", "encoding"),
    "images": (
        *("imageurls", "imageurl", "urls", "url", "img", "imgs", "files", "file", "pictures", "picture", "photos", "photo"),
        *("imagebase64", "imagesbase64", "base64", "imagedata", "documents", "document", "inputs", "input"),
    ),
    "prompt": ("question", "query", "text", "instruction", "instructions", "message", "messages", "systemprompt", "userprompt"),
    "jsonMode": ("json", "jsonoutput", "outputjson", "responseformat", "outputformat", "asjson"),
    "schema": ("jsonschema", "responseschema", "outputschema", "recordschema", "responsejsonschema"),
    "webhookUrl": ("webhook", "webhooks", "callback", "callbackurl", "hook", "hookurl", "notifyurl", "notificationurl"),
    "tier": ("servicetier", "flex"),
    "deadlineSeconds": ("timeout", "timeoutseconds", "deadline", "maxseconds", "ttl"),
    "customIds": ("ids", "customid", "imageids", "externalids"),
    "metadata": ("meta", "userdata", "tags", "labels"),
    "maxCredits": ("credits", "creditlimit", "maxcost", "budget"),
    "fallbackModels": ("fallback", "fallbacks", "fallbackmodel"),
    "model": ("modelname", "modelid", "engine"),
    "onError": ("errorpolicy", "errors", "failfast"),
    "imagesPerCall": ("batchsize", "chunksize"),
    "detail": ("imagedetail", "resolution", "quality"),
    "thinking": ("reasoning", "reasoningeffort", "thinkingbudget", "thinkinglevel"),
}
_PHRASES = {
    **dict.fromkeys(("perimage", "eachimage", "oneperimage"), '"granularity": "perImage"'),
    "requestsource": "the header Request-Source",
    "idempotencykey": "the header Idempotency-Key",
    **dict.fromkeys(("apikey", "key", "token", "authorization"), "the header Authorization: Bearer <key>"),
    **dict.fromkeys(("async", "wait", "respondasync"), "the header Prefer: respond-async"),
}
_FIELD_OF = {other: field for field, others in _MEANT.items() for other in others}


def meant_by(name: str) -> str:
    """The field that an unknown name was meant to be, in quotes, or the header that takes its value. Empty: none is near."""
    plain = _plain(name)
    if plain in _PHRASES:
        return _PHRASES[plain]
    ours = {_plain(field): field for field in FIELDS}
    field = ours.get(plain) or _FIELD_OF.get(plain)
    if not field:
        near = difflib.get_close_matches(plain, ours, n=1, cutoff=_NEAR)
        field = ours[near[0]] if near else ""
    return f'"{field}"' if field in FIELDS else ""


def hint_for(field: str, unknown: Sequence[str], others: Sequence[str] = ()) -> str:
    """What to add to the error about a missing field if unknown fields were meant to be it, or one of the `others` that are missing.

    All are named at once, so that nobody has to mend one name after the other. Empty: none was meant.
    """
    missing = {f'"{name}"' for name in (field, *others)}
    meant = ((name, meant_by(name)) for name in unknown[:MOST_NAMED])
    hints = [f"The request has {_quoted(name)}: did you mean {other}?" for name, other in meant if other in missing]
    return "".join(f" {hint}" for hint in hints)


def warning_of(unknown: Sequence[str]) -> str:
    """The warning of a job whose request had these fields. Empty if there are none."""
    if not unknown:
        return ""
    meant = [(name, meant_by(name)) for name in unknown[:MOST_NAMED]]
    named = ", ".join(f"{_quoted(name)} (did you mean {field}?)" if field else _quoted(name) for name, field in meant)
    more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
    return f"The request has fields that this service does not know and has ignored: {named}{more}."


def _plain(name: str) -> str:
    return "".join(character for character in name[:_LONGEST_NAME].lower() if character.isalnum())


def _quoted(name: str) -> str:
    return json.dumps(name[:_LONGEST_NAME], ensure_ascii=False)
