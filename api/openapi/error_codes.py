"""The stable codes of refusals. The codes of a request's fields come from the declarations of the fields.

docs/reference/api.md has the same table for people. A test compares both with the codes that the code raises.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.request.fields import FIELDS
from pipeline.types import INPUT_FAULTS, ItemCode


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """An error code with its status."""

    status: int
    when: str
    headers: tuple[str, ...] = ()  #: the headers of the answer, in addition to X-Error-Code


_LATER = ("Retry-After",)

ERRORS: dict[str, ErrorCode] = {
    "bad_request": ErrorCode(400, "the request can't be read as HTTP"),
    "invalid_json": ErrorCode(400, "the body is no JSON object"),
    **{field.code: ErrorCode(400, field.meaning_of_code) for field in FIELDS.values()},
    "invalid_image_count": ErrorCode(400, "fewer than 1 or more than 3000 images"),
    "invalid_multipart": ErrorCode(400, "a form is cut short, has no boundary, or has images that are no files"),
    "invalid_idempotency_key": ErrorCode(
        400, "`Idempotency-Key` is empty, over 255 characters, or has others than visible ASCII"
    ),
    "invalid_base64": ErrorCode(400, "an image is not base64; the text names it by its index"),
    "image_empty": ErrorCode(400, "an image is an empty string"),
    "image_too_large": ErrorCode(400, "an image is over 20 MB"),
    "total_too_large": ErrorCode(400, "the images are over 100 MB together"),
    "body_too_large": ErrorCode(400, "the body is over `MAX_BODY`"),
    "body_cut_short": ErrorCode(400, "the body is shorter than its `Content-Length`"),
    "invalid_wait": ErrorCode(400, "`wait` is no whole number"),
    "invalid_status": ErrorCode(400, "`status` is another"),
    "invalid_limit": ErrorCode(400, "`limit` is no whole number in its range"),
    "invalid_cursor": ErrorCode(400, "`cursor` is no `nextCursor` of this list"),
    "invalid_format": ErrorCode(400, "`format` is another"),
    "invalid_days": ErrorCode(400, "`days` is no whole number from 1 to 366"),
    "unauthorized": ErrorCode(
        401, "no key, or one that is malformed, unknown or revoked: the same text for all", ("WWW-Authenticate",)
    ),
    "insufficient_credits": ErrorCode(402, "the account has fewer credits than the request may cost"),
    "max_credits_too_low": ErrorCode(402, "the request may cost more than its `maxCredits`"),
    "not_found": ErrorCode(404, "nothing at this address, no such job or delivery, or not yours"),
    "method_not_allowed": ErrorCode(405, "another method than the address has", ("Allow",)),
    "already_ended": ErrorCode(409, "cancelling a job that has ended already"),
    "cancelled": ErrorCode(409, "the job was cancelled before any image was processed"),
    "idempotency_key_reused": ErrorCode(409, "this `Idempotency-Key` came with another body before"),
    "not_finished": ErrorCode(409, "results or retry of a job that has not ended"),
    "no_records": ErrorCode(409, "`jsonl` or `csv` of a job whose answers are merged"),
    "nothing_to_retry": ErrorCode(409, "retry of a job without a failed image"),
    "inputs_gone": ErrorCode(409, "retry of images that were not given by URL"),
    "results_expired": ErrorCode(410, "results are older than `RESULT_TTL`"),
    "delivery_gone": ErrorCode(410, "redelivery of a webhook whose job was deleted, or whose results have expired"),
    "length_required": ErrorCode(411, "the body came without `Content-Length`, or chunked"),
    "rate_limited": ErrorCode(429, "the key's rate is used up", _LATER),
    "too_many_open_jobs": ErrorCode(429, "the account has `MAX_OPEN_JOBS` open", _LATER),
    "scratch_full": ErrorCode(429, "the open jobs of all accounts have `MAX_SCRATCH_BYTES` in scratch", _LATER),
    "too_many_large_bodies": ErrorCode(429, "a body over 1 MB found no place among `MAX_LARGE_BODIES` in 30 s", _LATER),
    "no_waiting_place": ErrorCode(429, "`MAX_WAITERS` requests wait already; send `Prefer: respond-async`", _LATER),
    "internal_error": ErrorCode(500, "the service failed; its log has the cause"),
    "unavailable": ErrorCode(503, "SQL or scratch is away; nothing was accepted. `Retry-After` says when to try again", _LATER),
    "storage_full": ErrorCode(
        503, "a disk or the bucket is full; nothing was accepted. Whoever runs the service has to make room", _LATER
    ),
}

#: Code of pipeline/types.py → why one image has no answer.
ITEM_CODES: dict[str, str] = {
    "url_not_allowed": "the URL's text alone shows that it will not be fetched",
    "fetch_failed": "the image could not be fetched",
    "fetch_timeout": "the image did not arrive in 20 s",
    "image_too_large": "it is over 20 MB",
    "unsupported_format": "its bytes are no image, or one of a [format](formats.md) that is not taken",
    "image_empty": "there are no bytes",
    "image_corrupt": "it can't be decoded",
    "image_too_many_pixels": "over 50 million pixels, or a side over 30,000",
    "image_too_complex": "it takes too long or too much memory to decode",
    "image_crashed_decoder": "the decoder died of it",
    "safety_blocked": "the model refused it for its content",
    "recitation": "the model would have recited known text",
    "output_truncated": "the answer for this image alone is longer than 8192 tokens",
    "schema_mismatch": "the model gave no record for it that is JSON and fits the schema, asked three times",
    "model_refused": "the model never takes this image",
    "model_unavailable": "the model failed on this image twice",
    "deadline_exceeded": "the job's time was over",
    "cancelled": "the job ended before this image's turn",
    "worker_crashed": "two workers died of it while they had nothing else to do",
    "internal_error": "the service failed on this image's chunk",
}

#: The codes of requests for a job. pipeline/request, api/body.py and api/accept.py raise them.
OF_REQUESTS = (
    "bad_request",
    "invalid_json",
    *(field.code for field in FIELDS.values()),
    "invalid_image_count",
    "invalid_multipart",
    "invalid_idempotency_key",
    "invalid_base64",
    "image_empty",
    "image_too_large",
    "total_too_large",
    "body_too_large",
    "body_cut_short",
    "insufficient_credits",
    "max_credits_too_low",
    "idempotency_key_reused",
    "length_required",
    "too_many_open_jobs",
    "scratch_full",
    "too_many_large_bodies",
)

#: The codes of a job that failed because no image succeeded, if the caller waited. The answer has the code of one image.
OF_IMAGES = tuple((400 if code in INPUT_FAULTS else 500, code.value) for code in ItemCode)
