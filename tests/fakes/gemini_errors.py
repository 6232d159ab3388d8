"""The error bodies of Google's APIs (google.rpc.Status as JSON)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

#: The google.rpc.Code of each HTTP status. For 402 it is a guess, because Google has not published one.
STATUSES = {
    400: "INVALID_ARGUMENT",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
TYPE = "type.googleapis.com/google.rpc."
UNREADABLE = (
    "Unable to process input image. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"
)
#: The messages of models that lack a feature, such as Gemma.
LACKS = {
    "schema": "The specified schema produces a constraint that has too many states for serving.",
    "json": "JSON mode is not enabled for models/gemma-3-27b-it",
    "system": "Developer instruction is not enabled for models/gemma-3-27b-it",
}
#: The messages of a flex call that is shed, by status. A shed 429 has no details, because no quota of the account is used up.
SHED = {
    429: "Resource has been exhausted (e.g. check quota).",
    503: "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try again later.",
}
OVER_QUOTA = "You exceeded your current quota, please check your plan and billing details."


class ApiError(Exception):
    """An error answer with the HTTP status `code`, Google's `message`, and `details`."""

    def __init__(self, code: int, message: str, *details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details

    def body(self) -> bytes:
        """The answer's body in JSON. For a status such as 502, it is the HTML of Google's front end."""
        if self.code not in STATUSES:
            return f"<html><title>Error {self.code} ({HTTPStatus(self.code).phrase})!!1</title></html>".encode()
        error: dict[str, Any] = {"code": self.code, "message": self.message, "status": STATUSES[self.code]}
        if self.details:
            error["details"] = self.details
        return json.dumps({"error": error}).encode()


def bad_request(message: str, *, field: str | None = None) -> ApiError:
    """A 400. `field`: the path of the wrong field, which Google's JSON reader names in the details."""
    if field is None:
        return ApiError(400, message)
    return ApiError(400, message, {"@type": TYPE + "BadRequest", "fieldViolations": [{"field": field, "description": message}]})


def bad_key() -> ApiError:
    reason = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    service = {"metadata": {"service": "generativelanguage.googleapis.com"}}
    return ApiError(400, "API key not valid. Please pass a valid API key.", {"@type": TYPE + "ErrorInfo", **reason, **service})


def over_quota(period: str, retry_after: str | None) -> ApiError:
    """A 429 of the quota per `period` (Minute, Day). `retry_after`: the delay of its RetryInfo ("3s"); None leaves it out."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
        "quotaId": f"GenerateRequestsPer{period}PerProjectPerModel",
        "quotaValue": "1000",
    }
    details: list[dict[str, Any]] = [{"@type": TYPE + "QuotaFailure", "violations": [violation]}]
    if retry_after is not None:
        details.append({"@type": TYPE + "RetryInfo", "retryDelay": retry_after})
    return ApiError(429, OVER_QUOTA, *details)
