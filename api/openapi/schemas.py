"""The components of the OpenAPI document: JSON Schemas of bodies and headers.

The schemas of a request's fields come from the declarations in `pipeline/request/fields.py`. Tests check every answer that they
see against its schema.
"""

from __future__ import annotations

from typing import Any

from pipeline.request.fields import FIELDS
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
TIME = text("RFC 3339, in UTC", format="date-time")

#: The fields of both POSTs that make a job, in the order of the reference.
REQUEST_FIELDS: dict[str, Schema] = {name: field.json_schema for name, field in FIELDS.items()}
_IMAGE = text("The one image, if `images` is missing.", pattern=r"\S")
_REQUIRED = [name for name, field in FIELDS.items() if field.required and name != "images"]  # `image` may replace `images`


def _in_form(field: RequestField) -> Schema:
    """The schema of a field in a form."""
    if field.form != "texts":
        return field.json_schema
    return {
        "description": "As JSON, or a part for each element, whose text is taken as it stands.",
        "anyOf": [field.json_schema, {"type": ["string", "number", "boolean"], "minLength": 1}],
    }


_DIGIT, _BREAKS = "[A-Za-z0-9+/]", r"[\r\n]*"
_FOUR = f"(?:{_DIGIT}{_BREAKS})"
#: The base64 that pipeline/request/check.py takes: standard alphabet and padding, line breaks anywhere, optional `data:` prefix.
BASE64 = (
    r"^(?:[Dd][Aa][Tt][Aa]:[^,]{0,200};[Bb][Aa][Ss][Ee]64,)?"
    f"{_BREAKS}(?:{_FOUR}{{4}})*(?:{_FOUR}{{4}}|{_FOUR}{{3}}={_BREAKS}|{_FOUR}{{2}}={_BREAKS}={_BREAKS})$"
)

COMPONENTS: dict[str, Schema] = {
    "Request": {
        **record(
            {name: REQUEST_FIELDS[name] for name in _REQUIRED},
            {**{name: schema for name, schema in REQUEST_FIELDS.items() if name not in _REQUIRED}, "image": _IMAGE},
            "Unknown fields are ignored.",
        ),
        # A request must have `images` or `image`. The rule is attached to `prompt`, which every request has. An `anyOf` or a
        # `not` here would not do, because client generators and /docs take it for the whole description of the body.
        "dependentSchemas": {"prompt": {"not": {"properties": {"images": {"not": {}}, "image": {"not": {}}}}}},
        "if": {"properties": {"inputMethod": {"const": "base64"}}},
        "then": {"properties": {"images": {"items": {"pattern": BASE64}}, "image": {"pattern": BASE64}}},
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
    "Result": record(
        {
            "results": text("With `jsonMode` a JSON document."),
            "prompt": text("As sent."),
            "imageCount": number("Images processed."),
            "creditUsage": number("Credits charged."),
        },
        {"errors": several(ref("ItemError"), "Only where images failed.")},
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
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "counts": record({"total": number(), "succeeded": number(), "failed": number()}, what="Images."),
            "usage": record(
                {
                    "credits": number("Charged so far."),
                    "modelCalls": number(),
                    "inputTokens": number(),
                    "outputTokens": number("Thinking included."),
                    "cacheHits": number("Images that cost no call."),
                    "money": MONEY,
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
            "metadata": {"type": ["object", "null"], "description": "As sent."},
            "links": ref("Links"),
        }
    ),
    "AcceptedJob": record(
        {"id": text("`job_…`"), "status": ref("JobStatus"), "links": ref("Links")},
        what="What is left of a job to show when SQL is away just after it was accepted.",
    ),
    "JobEvent": record(
        {
            "event": text(enum=["job"]),
            "id": text("For `Last-Event-ID`."),
            "data": text("The job.", contentMediaType="application/json", contentSchema=ref("Job")),
        }
    ),
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
            "result": {"description": "Its own result, where each image has one and the job has ended with results."},
        }
    ),
    "Estimate": record(
        {
            "images": number(),
            "modelCalls": number(),
            "inputTokens": number(),
            "outputTokens": number(),
            "credits": number("The most that it may cost."),
            "money": MONEY,
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
    "DeliveryList": record({"deliveries": several(ref("Delivery"))}),
    "Delivery": record(
        {
            "id": text("The `webhook-id`, the same at each attempt."),
            "round": number("Of the job: each end is told.", minimum=1),
            "event": text(enum=["job.succeeded", "job.partial", "job.failed", "job.cancelled"]),
            "url": text("As sent in `webhookUrl`."),
            "status": text("`dead`: given up, can be sent again.", enum=["pending", "delivered", "dead"]),
            "attempts": several(ref("Attempt"), "The oldest first; of many just the last 50."),
            "createdAt": TIME,
            "nextAttemptAt": or_null(TIME),
        }
    ),
    "Attempt": record(
        {
            "at": TIME,
            "status": or_null(number("HTTP; null where there was no answer.")),
            "error": or_null(text("Why there was none.")),
            "ms": number("What it took."),
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
    "Day": record({"date": text("In UTC.", format="date"), "jobs": number("That ended."), "credits": number("Charged.")}),
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
    "asset": {"description": "The script's file name, as it stands in the page.", "schema": text()},
    "job": {"description": "The job's `id`.", "schema": text()},
    "delivery": {"description": "The delivery's `id`, `webhook-id` to the receiver.", "schema": text()},
}
