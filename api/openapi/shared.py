"""Parts of the OpenAPI document that several operations share."""

from __future__ import annotations

from api.openapi.document import Parameter, ResponseSpec
from api.openapi.schemas import Schema, number, ref, text

#: Headers of an answer to a POST that made a job or that repeats an earlier one.
REPLAYED = ("Preference-Applied", "Idempotent-Replayed")
ACCEPTED = ResponseSpec(
    status=202,
    what="It goes on: the job.",
    schema={"anyOf": [ref("Job"), ref("AcceptedJob")]},
    headers=("Location", "Retry-After", *REPLAYED),
    names={"job": "/id"},
)

#: The bodies that both POSTs take.
BODIES: dict[str, Schema | str] = {"application/json": "Request", "multipart/form-data": "Form"}

WAIT = Parameter(
    name="wait", schema=number(), what="Answer as soon as the job has ended, or after so many seconds (at most `SYNC_WAIT`)."
)
PREFER = Parameter(
    name="Prefer",
    place="header",
    schema=text(),
    what="`respond-async`: 202 at once. `wait=N`: 202 after N seconds, at most `SYNC_WAIT`. Without it: `SYNC_WAIT`.",
)
IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    place="header",
    schema=text(pattern=r"^[!-~]{1,255}$"),
    what="The same key with the same body gives the same job, with another body 409.",
)
REQUEST_SOURCE = Parameter(name="Request-Source", place="header", schema=text(), what="Kept with the job.")
