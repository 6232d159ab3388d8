"""The components of the OpenAPI document: JSON Schemas of bodies and headers.

The schemas of a request's fields come from the declarations in `pipeline/request/fields.py`. Tests check every answer that they
see against its schema.
"""

from __future__ import annotations

from typing import Any

from pipeline.evidence.faults import EvidenceFault
from pipeline.evidence.types import Match
from pipeline.request.fields import FIELDS, METHODS
from pipeline.request.kinds import RequestField
from pipeline.types import MAX_IMAGES, ItemCode, JobStatus

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, what: str = "") -> Schema:
    """An object that must have all fields of `required`."""
    schema: Schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}
    return {**schema, "description": what} if what else schema


def text(what: str = "", **details: Any) -> Schema:
    return {"type": "string", **({"description": what} if what else {}), **details}


def number(what: str = "", **details: Any) -> Schema:
    """A whole number that is not negative."""
    return {"type": "integer", "minimum": 0, **({"description": what} if what else {}), **details}


def or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def several(items: Schema, what: str = "", **details: Any) -> Schema:
    return {"type": "array", "items": items, **({"description": what} if what else {}), **details}


NEXT: Schema = {"type": ["string", "null"], "description": "`cursor` of the next page; null on the last one."}
MONEY: Schema = {"type": "number", "minimum": 0, "description": "Dollars, by the prices in `MODELS`."}
EVENTS = [f"job.{status.value}" for status in JobStatus if status.ended]  #: the types of webhooks
TIME = text("RFC 3339, in UTC", format="date-time")


def _own_type(field: RequestField) -> Schema | None:
    """The schema of a field that has a component of its own: a choice, or an object with any members. It leaves null out."""
    if None in field.schema.get("enum", ()):
        return text(enum=[value for value in field.schema["enum"] if value is not None])
    if field.schema.get("type") == ["object", "null"]:
        return {"type": "object", "additionalProperties": True}
    return None


def _type_name(field: RequestField) -> str:
    """The name of the field's component: `onError` has `OnError`."""
    return "RecordSchema" if field.name == "schema" else field.name[0].upper() + field.name[1:]


def _for_clients(field: RequestField) -> Schema:
    """The schema of a field, written so that a generated client has one type for it in JSON and in forms."""
    if _own_type(field) is None:
        return field.json_schema
    return {"description": field.json_schema["description"], **or_null(ref(_type_name(field)))}


#: The fields of both POSTs that make a job, in the order of the reference.
REQUEST_FIELDS: dict[str, Schema] = {name: _for_clients(field) for name, field in FIELDS.items()}
OWN_TYPES: dict[str, Schema] = {_type_name(field): own for field in FIELDS.values() if (own := _own_type(field))}
#: `openapi-generator` writes the class `Form`, which the clients in TypeScript import, only if a JSON body refers to it too. The
#: `not` is such a reference. It refuses nothing, because a text is never an object.
_IMAGE = text("The one image, if `images` is missing.", pattern=r"\S", **{"not": ref("Form")})
_REQUIRED = [name for name, field in FIELDS.items() if field.required and name != "images"]  # `image` may replace `images`


def _in_form(field: RequestField) -> Schema:
    """The schema of a field in a form."""
    schema = REQUEST_FIELDS[field.name]
    if field.form != "texts":
        return schema
    array = {name: value for name, value in schema.items() if name not in {"description", "type"}}
    return {
        "description": f"{schema['description']} Send it as JSON, or send one part for each element, whose text is taken as it is.",
        "anyOf": [{"type": "array", **array}, text(), {"type": "null"}],
    }


_DIGIT, _BREAKS = "[A-Za-z0-9+/]", r"[\r\n]*"
_FOUR = f"(?:{_DIGIT}{_BREAKS})"
#: The base64 that pipeline/request/check.py takes: standard alphabet and padding, line breaks anywhere, optional `data:` prefix.
BASE64 = (
    r"^(?:[Dd][Aa][Tt][Aa]:[^,]{0,200};[Bb][Aa][Ss][Ee]64,)?"
    f"{_BREAKS}(?:{_FOUR}{{4}})*(?:{_FOUR}{{4}}|{_FOUR}{{3}}={_BREAKS}|{_FOUR}{{2}}={_BREAKS}={_BREAKS})$"
)
#: The same, or nothing: an empty string among images fails alone.
BASE64_OR_EMPTY = rf"{BASE64[:-1]}?$|^\s*$"

_DELIVERY: dict[str, Schema] = {
    "id": text("The `webhook-id`, the same at each attempt."),
    "job": text("`job_…`"),
    "round": number("Of the job: each end is told.", minimum=1),
    "event": text(enum=EVENTS),
    "url": text("As sent in `webhookUrl`."),
    "status": text("`dead`: given up, can be sent again.", enum=["pending", "delivered", "dead"]),
    "attempts": several(ref("Attempt"), "The oldest first; of many just the last 50."),
    "createdAt": TIME,
    "nextAttemptAt": or_null(TIME),
}

#: The members of an image that only jobs with `evidence` have.
ITEM_EVIDENCE: dict[str, Schema] = {
    "evidence": or_null(ref("Evidence")),
    "unsupported": several(text("A JSON Pointer."), "The values of the record that do not stand in the picture."),
    "evidenceError": or_null(ref("EvidenceError")),
    "needsReview": {"type": "boolean", "description": "Whether `reviewWhen` selects it."},
}

COMPONENTS: dict[str, Schema] = {
    "Request": {
        **record(
            {name: REQUEST_FIELDS[name] for name in _REQUIRED},
            {**{name: schema for name, schema in REQUEST_FIELDS.items() if name not in _REQUIRED}, "image": _IMAGE},
            "Unknown fields are ignored, and named in the job's `warnings`.",
        ),
        # A request must have `images` or `image`. The rule is attached to `prompt`, which every request has. An `anyOf` or a
        # `not` here would not do, because client generators and /docs take it for the whole description of the body.
        "dependentSchemas": {"prompt": {"not": {"properties": {"images": {"not": {}}, "image": {"not": {}}}}}},
        "if": {"properties": {"inputMethod": {"const": "base64"}}},
        "then": {
            "properties": {
                "images": {"items": {"pattern": BASE64_OR_EMPTY}, "contains": {"pattern": BASE64}},
                "image": {"pattern": BASE64},
            }
        },
    },
    "Form": record(
        {
            "images": several(
                text(format="binary", minLength=1), "Files, each with a filename.", minItems=1, maxItems=MAX_IMAGES
            ),
            "prompt": REQUEST_FIELDS["prompt"],
        },
        {name: _in_form(field) for name, field in FIELDS.items() if name not in {"inputMethod", "images", "prompt"}},
        "What is no text (numbers, objects, arrays) is sent as JSON. `inputMethod` is not needed.",
    ),
    "Picture": text("The bytes of one image.", format="binary", minLength=1),
    **OWN_TYPES,
    "Result": record(
        {
            "results": text("With `jsonMode` a JSON document."),
            "prompt": text("As sent."),
            "imageCount": number("Images processed."),
            "creditUsage": number("Credits charged."),
        },
        {
            "errors": several(ref("ItemError"), "Only where images failed."),
            "evidence": several(ref("ResultEvidence"), "Of each image, in a job with `evidence`."),
            "corrections": several(ref("ItemCorrections"), "Of a job's results, only where people changed or checked some."),
        },
    ),
    "ItemError": record(
        {
            "index": number("Of the image in `images`, from 0."),
            "code": ref("ItemCode"),
            "message": text("What is wrong, and how to mend it."),
        },
        {"customId": text("Where the request had `customIds` or files with names.")},
    ),
    "ItemCode": text("Why one image has no answer.", enum=[code.value for code in ItemCode]),
    "Job": record(
        {
            "id": text("`job_…`"),
            "status": ref("JobStatus"),
            "tier": ref("Tier"),
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "counts": record(
                {"total": number(), "succeeded": number(), "failed": number()},
                {"needsReview": number("Those that `reviewWhen` selects, in a job with `evidence`.")},
                what="Images.",
            ),
            "usage": record(
                {
                    "credits": number("Charged so far."),
                    "modelCalls": number(),
                    "inputTokens": number(),
                    "outputTokens": number("Thinking included."),
                    "cacheHits": number("Images that cost no call."),
                    "money": MONEY,
                    "moneyByTier": ref("MoneyByTier"),
                    "modelVersion": or_null(text("Of the latest answer.")),
                }
            ),
            "createdAt": TIME,
            "startedAt": or_null(TIME),
            "finishedAt": or_null(TIME),
            "expiresAt": or_null(TIME),
            "inputsExpireAt": or_null(text("Images that were uploaded are kept until then for a retry.", format="date-time")),
            "error": or_null(ref("JobError")),
            "warnings": several(text(), "For a person."),
            "metadata": {"description": "As sent.", **or_null(ref("Metadata"))},
            "name": or_null(text("As sent.")),
            "batch": or_null(text("As sent.")),
            "links": ref("Links"),
        }
    ),
    "Accepted": {
        "description": "The job, or the start of it if the database is unavailable just after the job was accepted.",
        "anyOf": [ref("Job"), ref("AcceptedJob")],
    },
    "AcceptedJob": record(
        {"id": text("`job_…`"), "status": ref("JobStatus"), "links": ref("Links")},
        what="What the service can show of a job if the database is unavailable just after the job was accepted.",
    ),
    "JobEvent": record(
        {
            "event": text(enum=["job"]),
            "id": text("For `Last-Event-ID`."),
            "data": text("The job.", contentMediaType="application/json", contentSchema=ref("Job")),
        },
        what="One event of the stream.",
    ),
    "JobRequest": record(
        {
            "inputMethod": text("`form`: the images were sent as files.", enum=[*METHODS, "form"]),
            **{
                name: REQUEST_FIELDS[name]
                for name in (
                    "prompt",
                    "jsonMode",
                    "granularity",
                    "schema",
                    "merge",
                    "imagesPerCall",
                    "cache",
                    "evidence",
                    "reviewWhen",
                    "model",
                    "fallbackModels",
                    "detail",
                    "thinking",
                    "onError",
                    "tier",
                    "deadlineSeconds",
                    "keepInputsSeconds",
                    "maxMoney",
                    "webhookUrl",
                    "metadata",
                    "name",
                    "batch",
                )
            },
        },
        what="The fields of a job's request, as sent or as their default, without its images.",
    ),
    "MoneyByTier": record({"standard": MONEY}, {"economy": MONEY}, "By the tier in which the calls were served."),
    "JobError": record({"code": text("Stable."), "message": text()}, what="Why the job failed."),
    "JobStatus": text(enum=[status.value for status in JobStatus]),
    "Links": record(
        {name: text() for name in ("self", "events", "items", "results", "deliveries", "cancel", "retry")},
        what="Paths.",
    ),
    "JobList": record({"jobs": several(ref("Job")), "nextCursor": NEXT}),
    "ItemList": record({"items": several(ref("Item")), "nextCursor": NEXT}),
    "Item": record(
        {
            "index": number("Of the image in `images`, from 0."),
            "customId": or_null(text("As sent. Without one, the name of the uploaded file.")),
            "source": or_null(text("Its URL, or the name of the uploaded file, until the results expire. Null for base64.")),
            "status": text(enum=["queued", "running", "succeeded", "failed"]),
            "code": or_null(ref("ItemCode")),
            "message": or_null(text("What is wrong, and how to mend it.")),
            "attempts": number("Rounds of the job that it was in."),
            "note": or_null(
                text("Notes, with `; ` between them, each a code, perhaps with `: ` and words: what the model was shown.")
            ),
            "tier": {"description": "In which its call was served. Null if no call answered it.", **or_null(ref("Tier"))},
            "result": {
                "description": "Its own result, where each image has one. It comes while the job runs, once all images are received; "
                "with `onError: fail` it comes when the job has ended with results."
            },
        },
        {**ITEM_EVIDENCE, "corrections": ref("Corrections")},
    ),
    "ResultEvidence": record(
        {"index": number("Of the image in `images`, from 0."), "customId": or_null(text("As sent.")), **ITEM_EVIDENCE},
        what="The evidence of one image.",
    ),
    "Evidence": {
        "type": "object",
        "additionalProperties": ref("EvidencePlace"),
        "description": "By the JSON Pointer of each value of the record: where it stands in the picture.",
    },
    "EvidencePlace": record(
        {
            "match": text(
                "How the value stands there: letter for letter, written otherwise, as similar text, not at all; `notVerbatim`: it "
                "need not be a text of the picture.",
                enum=[match.value for match in Match],
            ),
            "text": text("As the OCR read it. Empty if it was not found."),
            "boxes": several(
                several({"type": "number", "minimum": 0, "maximum": 1}, minItems=4, maxItems=4),
                "Left, top, right, bottom, from 0 to 1 of the upright picture. One for each line of the value.",
            ),
            "confidence": or_null({"type": "number", "minimum": 0, "maximum": 1, "description": "The OCR's, not the model's."}),
        },
        {"reason": text("Why `none` does not mean that it is missing.", enum=[EvidenceFault.SCRIPT_NOT_READ.value])},
    ),
    "EvidenceError": record(
        {"code": text("Stable.", enum=[code.value for code in EvidenceFault]), "message": text()},
        what="Why the evidence says little or nothing.",
    ),
    "Corrections": record(
        {
            "changes": several(ref("Change"), "The oldest first, at most the last 200."),
            "checked": {"type": "boolean"},
            "checkedAt": or_null(TIME),
            "checkedBy": or_null(text("The name and the id of the key.")),
            "revision": number("How often it was changed."),
        },
        {"record": {"description": "The corrected record. It is missing if it is as the model gave it."}},
        "What people changed and checked.",
    ),
    "Change": record(
        {
            "pointer": text("A JSON Pointer into the record."),
            "from": {"description": "Null where there was nothing."},
            "to": {"description": "Null where there is nothing now."},
            "at": TIME,
            "by": text("The name and the id of the key."),
        }
    ),
    "Correction": record(
        {},
        {
            "record": {"description": "The whole corrected record."},
            "changes": {
                "type": "object",
                "additionalProperties": {},
                "description": "JSON Pointer → value. They are set in the corrected record.",
            },
            "checked": {"type": "boolean"},
            "revision": number("That of the `corrections` that are changed, 0 if there are none. Any, if it is left out."),
        },
    ),
    "Estimate": record(
        {
            "images": number(),
            "modelCalls": number(),
            "inputTokens": number(),
            "outputTokens": number(),
            "credits": number("The most that it may cost."),
            "money": MONEY,
            "moneyByTier": {**ref("MoneyByTier"), "description": "`money` if all calls are served in that tier."},
        },
        {"warnings": several(text(), "Only where there are some, for a person.")},
    ),
    "Formats": record(
        {
            "supportedFormats": several(text(), "These go to the model as they are."),
            "convertedFormats": several(text(), "These become PNG."),
            "limits": record(
                {
                    "maxImages": number(),
                    "maxImageBytes": number(),
                    "maxTotalBytes": number(),
                    "maxOutputTokensPerCall": number(),
                }
            ),
            "credits": record({"base": number(), "perImage": number()}),
        }
    ),
    "Capabilities": record(
        {
            "version": text("Of the service."),
            "engine": text("The setting `ENGINE`."),
            "models": several(ref("Model"), "Those that a request may name. The first one is the default."),
            "limits": record(
                {
                    "imagesPerRequest": number(),
                    "imageBytes": number("Of one image, as received."),
                    "totalBytes": number("Of all images of a request, as received."),
                    "bodyBytes": number("Of a request's body."),
                    "imagePixels": number(),
                    "imageSide": number("Pixels."),
                    "imagesPerCall": number(),
                    "outputTokensPerCall": number(),
                    "promptChars": number(),
                    "customIdChars": number(),
                    "metadataBytes": number(),
                    "openJobs": number("Of the account."),
                    "requestsPerWindow": number("Of the key."),
                    "windowSeconds": number(),
                    "waitSeconds": number("The longest that a request is held open."),
                    "resultSeconds": number("How long results are kept."),
                }
            ),
            "credits": record({"base": number(), "perImage": number(), "available": number("Of the account.")}),
            "keepInputsMaxSeconds": number("The highest `keepInputsSeconds`."),
            "cache": {"type": "boolean", "description": "Whether `cache` has an effect."},
            "ready": {"type": "boolean", "description": "As `/readyz`."},
            "problems": several(ref("CapabilityProblem"), "What keeps the account's requests from being answered now."),
            "warnings": several(text(), "What every job on this engine says in its `warnings`."),
        }
    ),
    "Model": record(
        {
            "name": text(),
            "default": {"type": "boolean"},
            "engine": text(),
            "price": or_null(
                record(
                    {
                        "input": {"type": "number", "minimum": 0},
                        "output": {"type": "number", "minimum": 0},
                        "economy": or_null({"type": "number", "description": "The fraction of it in the tier economy."}),
                    },
                    what="Dollars for a million tokens, today. Null where the settings have no price.",
                )
            ),
            "problem": or_null(text("What somebody has to correct before this model can be asked.")),
            "can": record(
                {
                    "prompt": {"type": "boolean", "description": "Whether it follows `prompt`."},
                    "schema": {"type": "boolean", "description": "Whether it fills `schema`."},
                    "detail": several(text(), "The values of `detail` that differ for it."),
                    "thinking": several(text(), "The values of `thinking` that have an effect."),
                    "tiers": several(text(), "The values of `tier` that it has."),
                }
            ),
        }
    ),
    "CapabilityProblem": record(
        {
            "code": text(enum=["database_away", "redis_away", "scratch_away", "model_away", "insufficient_credits"]),
            "what": text("For a person."),
            "fix": text("What to do, for a person."),
        }
    ),
    "KeyList": record({"keys": several(ref("Key"))}),
    "Key": record(
        {
            "id": text("The public part of the key."),
            "name": text(),
            "prefix": text("How the key begins."),
            "createdAt": TIME,
            "lastUsedAt": or_null(text("Within an hour.", format="date-time")),
            "current": {"type": "boolean", "description": "Whether this request came with it."},
        }
    ),
    "NewKey": record({"name": text(minLength=1, maxLength=200)}),
    "MadeKey": record({"id": text(), "name": text(), "key": text("It is shown this once."), "createdAt": TIME}),
    "DeliveryList": record({"deliveries": several(ref("Delivery"))}),
    "DeliveryPage": record({"deliveries": several(ref("Delivery")), "nextCursor": NEXT}),
    "DeliveryWithBody": record(
        {**_DELIVERY, "body": or_null(text("What each attempt sends. `null`: the job was deleted, or its results have expired."))}
    ),
    "Delivery": record(_DELIVERY),
    "Attempt": record(
        {
            "at": TIME,
            "status": or_null(number("HTTP; null where there was no answer.")),
            "error": or_null(text("Why there was none.")),
            "ms": number("What it took."),
            "response": or_null(
                text("How the answer's body begins, a stranger's text. Only of the last 3 attempts, and not of private networks.")
            ),
        }
    ),
    "Usage": record(
        {
            "balance": record(
                {"available": number(), "held": number("By open jobs."), "charged": number("Ever.")}, what="Credits."
            ),
            "ledger": several(ref("LedgerRow"), "The newest first."),
            "nextCursor": NEXT,
            "days": several(ref("Day"), "The newest first, without those on which no job ended."),
        }
    ),
    "LedgerRow": record(
        {
            "id": number(),
            "kind": text(enum=["grant", "reserve", "charge", "release"]),
            "credits": number(),
            "job": or_null(text("`job_…`; it may have been deleted since.")),
            "round": or_null(number(minimum=1)),
            "requestSource": or_null(text("As sent with the job.")),
            "createdAt": TIME,
        }
    ),
    "Day": record(
        {
            "date": text("In UTC.", format="date"),
            "jobs": number("That ended."),
            "credits": number("Charged."),
            "money": MONEY,
            "moneyByTier": ref("MoneyByTier"),
        }
    ),
    "Health": record({"status": text(enum=["ok"])}),
    "Readiness": record(
        {
            "status": text(enum=["ready", "not ready"]),
            "checks": {"type": "object", "additionalProperties": text(enum=["ok", "away"])},
        },
        {"details": {"type": "object", "additionalProperties": text(), "description": "On loopback or with `METRICS_TOKEN`."}},
    ),
    "CompatibleError": record({"error": text()}, what="The code is in `X-Error-Code`."),
    "Error": record({"error": text("What, where and how to mend it; may change."), "code": text("Stable.")}),
    "Problem": record(
        {
            "type": text(enum=["about:blank"]),
            "title": text(),
            "status": number(minimum=400, maximum=599),
            "detail": text(),
            "error": text(),
            "code": text("Stable."),
        },
        what="RFC 9457, for who accepts `application/problem+json`.",
    ),
}

COMPONENTS["ItemCorrections"] = {
    **COMPONENTS["Corrections"],
    "properties": {
        "index": number("Of the image in `images`, from 0."),
        "customId": or_null(text()),
        **COMPONENTS["Corrections"]["properties"],
    },
    "required": ["index", "customId", *COMPONENTS["Corrections"]["required"]],
}

COMPONENTS["WebhookEvent"] = record(
    {
        "type": text(enum=EVENTS),
        "timestamp": TIME,
        "data": record(
            {name: COMPONENTS["Job"]["properties"][name] for name in COMPONENTS["Job"]["required"]},
            {
                "results": text("The results, if the whole body stays under 20 kB. Otherwise read them from `links`."),
                "errors": several(ref("ItemError"), "Only if images failed, and with `results`."),
            },
            "The job.",
        ),
    },
    what="The body of a webhook.",
)


def header(what: str, schema: Schema) -> Schema:
    return {"description": what, "schema": schema}


HEADERS: dict[str, Schema] = {
    "Allow": header("The methods that the address has.", text()),
    "Idempotent-Replayed": header("The request had come before with the same `Idempotency-Key`.", text(enum=["true"])),
    "Location": header("The job's address.", text()),
    "Preference-Applied": header("What was granted of `Prefer`.", text()),
    "RateLimit": header("What is left for the key: `r` requests, and more in `t` seconds.", text()),
    "RateLimit-Policy": header("What the key has: `q` requests in `w` seconds.", text()),
    "Retry-After": header("Seconds.", number()),
    "WWW-Authenticate": header("How to send a key.", text()),
    "X-Image-Height": header("Pixels of the upright original.", number()),
    "X-Image-Width": header("Pixels of the upright original.", number()),
    "X-RateLimit-Limit": header("Requests a window that the key has.", number()),
    "X-RateLimit-Remaining": header("What is left of them.", number()),
    "X-Request-Id": header("As sent, or made here: it stands in each line that is logged for the request.", text()),
}

#: The headers of every answer, and those of every answer to a valid key.
EVERY_ANSWER: dict[str, tuple[str, ...]] = {
    "all": ("X-Request-Id",),
    "valid key": ("X-RateLimit-Limit", "X-RateLimit-Remaining", "RateLimit", "RateLimit-Policy"),
}

PATH_PARAMETERS: dict[str, Schema] = {
    "name": {"description": "The picture's file name.", "schema": text()},
    "asset": {"description": "The script's file name, as it stands in the page.", "schema": text()},
    "file": {"description": "The file's name, as it stands in the page.", "schema": text()},
    "version": {"description": "The version of the console's files, as it stands in the page.", "schema": text()},
    "item": {"description": "The image's `index`.", "schema": number()},
    "job": {"description": "The job's `id`.", "schema": text()},
    "key": {"description": "The key's `id`.", "schema": text()},
    "delivery": {"description": "The delivery's `id`, `webhook-id` to the receiver.", "schema": text()},
}
