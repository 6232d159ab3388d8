"""The components of the OpenAPI document: JSON Schemas of bodies and headers.

Tests check every answer that they see against its schema.
"""

from __future__ import annotations

from api.openapi.building import Schema, number, text
from api.openapi.of_accounts import ACCOUNTS
from api.openapi.of_items import ITEMS
from api.openapi.of_jobs import JOBS
from api.openapi.of_requests import REQUESTS
from api.openapi.of_service import SERVICE

COMPONENTS: dict[str, Schema] = REQUESTS | JOBS | ITEMS | ACCOUNTS | SERVICE


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
