"""Parts of the OpenAPI document that several operations share."""

from __future__ import annotations

from api.openapi.building import Schema, number, text
from api.openapi.document import Parameter, ResponseSpec

#: Headers of an answer to a POST that made a job or that repeats an earlier one.
REPLAYED = ("Preference-Applied", "Idempotent-Replayed")
ACCEPTED = ResponseSpec(
    status=202,
    what="The job goes on. Follow it at `Location`.",
    schema="Accepted",
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
    what="A second request with the same key and the same body gets the first one's job. With another body it gets 409.",
)
REQUEST_SOURCE = Parameter(
    name="Request-Source",
    place="header",
    schema=text(),
    what="Where the request comes from. It is kept with the job and shown in the usage.",
)
#: The estimate has it because `openapi-python-client` fails on an operation with two bodies and no optional parameter.
REQUEST_ID = Parameter(
    name="X-Request-Id",
    place="header",
    schema=text(),
    what="An id of your own. It is in the answer and in each log line of the request.",
)
