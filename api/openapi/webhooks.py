"""The webhooks in the OpenAPI document: the requests that the service sends when a job has ended."""

from __future__ import annotations

from typing import Any

from api.openapi.building import EVENTS, ref, text
from api.openapi.examples import DELIVERY_ID, JOB, RESULT

#: Event → when it is sent.
WHEN = {
    "job.succeeded": "Every image of the job was processed.",
    "job.partial": "Some images of the job were processed.",
    "job.failed": "The job failed: it has no results.",
    "job.cancelled": "The job was cancelled by its owner.",
}
#: `openapi-generator` 7.26 writes functions for webhooks, too. For Python it leaves out the types of their parameters, and a client
#: with such a function cannot be imported, unless the document states the type in its template's own words.
_PYTHON_TYPE = "x-py-typing"
_SIGNATURE = (
    "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, with the bytes of the account's secret as key. "
    "For a day after a rotation there are two signatures, separated by a space."
)
_HEADERS = [
    ("webhook-id", "The id of the event. It stays the same however often the event is sent.", DELIVERY_ID),
    ("webhook-timestamp", "The time of this attempt, in seconds since 1970.", "1795694402"),
    ("webhook-signature", _SIGNATURE, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
]
_ANSWERS = {
    "2XX": "The webhook was received. Answer within 15 s, and do the work afterwards.",
    "410": "The webhook is not sent again.",
    "429": "The webhook is sent again later, not before `Retry-After` has passed.",
    "503": "The webhook is sent again later, not before `Retry-After` has passed.",
    "default": "The webhook is sent again by `WEBHOOK_SCHEDULE`. Redirects are not followed.",
}
#: Event → status, processed and failed images, and credits of the job in the example.
_ENDS = {"job.succeeded": (1, 0, 11), "job.partial": (1, 1, 11), "job.failed": (0, 1, 0), "job.cancelled": (0, 0, 0)}


def webhooks() -> dict[str, Any]:
    """The member `webhooks` of the document."""
    return {event: {"post": _operation(event)} for event in EVENTS}


def example(event: str) -> dict[str, Any]:
    """The body of a webhook."""
    succeeded, failed, credits_ = _ENDS[event]
    data: dict[str, Any] = {
        **JOB,
        "status": event.removeprefix("job."),
        "counts": {"total": max(succeeded + failed, 1), "succeeded": succeeded, "failed": failed},
        "usage": {**JOB["usage"], "credits": credits_},  # type: ignore[dict-item]
    }
    message = "The server answered 404. Check the URL."
    if event == "job.failed":
        data["error"] = {"code": "fetch_failed", "message": message}
    else:
        data["results"] = RESULT["results"] if succeeded else ""
    if event == "job.partial":
        data["errors"] = [{"index": 1, "code": "fetch_failed", "message": message}]
    return {"type": event, "timestamp": data["finishedAt"], "data": data}


def _operation(event: str) -> dict[str, Any]:
    return {
        "operationId": event.replace(".", "_"),
        "summary": WHEN[event],
        "description": "The service sends this to the request's `webhookUrl`, signed as Standard Webhooks specifies.",
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": what,
                "schema": text(),
                "example": value,
                _PYTHON_TYPE: "str",
            }
            for name, what, value in _HEADERS
        ],
        "requestBody": {
            "required": True,
            _PYTHON_TYPE: "dict[str, Any]",
            "content": {"application/json": {"schema": ref("WebhookEvent"), "example": example(event)}},
        },
        "responses": {status: {"description": what} for status, what in _ANSWERS.items()},
        "security": [],
    }
