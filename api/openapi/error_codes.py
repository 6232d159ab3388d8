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
    "invalid_json": ErrorCode(400, "the body is not a JSON object"),
    **{field.code: ErrorCode(400, field.meaning_of_code) for field in FIELDS.values()},
    "engine_cannot": ErrorCode(
        400, "the engine can't do what is asked, for example fill a `schema` with `ENGINE=ocr`; the text names the ways out"
    ),
    "invalid_image_count": ErrorCode(400, "fewer than 1 or more than 3000 images"),
    "invalid_multipart": ErrorCode(400, "a form is cut short, has no boundary, or has images that are not files"),
    "invalid_idempotency_key": ErrorCode(
        400, "`Idempotency-Key` is empty, longer than 255 characters, or has characters that are not visible ASCII"
    ),
    "invalid_base64": ErrorCode(400, "an image is not base64; the text names it by its index"),
    "image_empty": ErrorCode(400, "every image is an empty string or an empty file"),
    "image_too_large": ErrorCode(400, "an image is over 20 MB"),
    "total_too_large": ErrorCode(400, "all images together are over 100 MB"),
    "body_too_large": ErrorCode(400, "the body is over `MAX_BODY`"),
    "body_cut_short": ErrorCode(400, "the body is shorter than its `Content-Length`"),
    "invalid_wait": ErrorCode(400, "`wait` is not a whole number"),
    "invalid_status": ErrorCode(400, "`status` is not a status of jobs or images"),
    "invalid_limit": ErrorCode(400, "`limit` is not a whole number in its range"),
    "invalid_cursor": ErrorCode(400, "`cursor` is not a `nextCursor` of this list"),
    "invalid_filter": ErrorCode(400, "`q` or `batch` of a list is too long, or has characters that are no Unicode text"),
    "invalid_time": ErrorCode(400, "`from` or `to` is no day and no time as RFC 3339 writes them"),
    "invalid_format": ErrorCode(400, "`format` is not one of the formats of results"),
    "invalid_days": ErrorCode(400, "`days` is not a whole number from 1 to 366"),
    "invalid_width": ErrorCode(400, "`width` is not a whole number from 64 to 2048"),
    "correction_invalid": ErrorCode(
        400, "a correction can't be read, or its record does not fit the job's schema; the text says where"
    ),
    "invalid_checked": ErrorCode(400, "`checked` is not true or false"),
    "invalid_needs_review": ErrorCode(400, "`needsReview` is not true or false"),
    "invalid_corrections": ErrorCode(400, "`corrections` is not `none`"),
    "unauthorized": ErrorCode(
        401, "the key is missing, malformed, unknown or revoked; the text is the same for all of these", ("WWW-Authenticate",)
    ),
    "insufficient_credits": ErrorCode(402, "the account has fewer credits than the request may cost"),
    "max_credits_too_low": ErrorCode(402, "the request may cost more than its `maxCredits`"),
    "max_money_too_low": ErrorCode(402, "the estimate of the request is higher than its `maxMoney`"),
    "not_found": ErrorCode(
        404, "nothing is at this address, the job or delivery does not exist, or it belongs to another account"
    ),
    "method_not_allowed": ErrorCode(405, "the address does not take this method", ("Allow",)),
    "already_ended": ErrorCode(409, "the job to be cancelled has ended already"),
    "cancelled": ErrorCode(409, "the job was cancelled before any image was processed"),
    "idempotency_key_reused": ErrorCode(409, "the same `Idempotency-Key` was sent with another body before"),
    "not_finished": ErrorCode(409, "the job has not ended, so it has no results and cannot be retried"),
    "no_records": ErrorCode(409, "`jsonl` was asked for or a record was corrected, but the answers of this job are merged"),
    "correction_conflict": ErrorCode(409, "the image was corrected or checked by somebody else since the named `revision`"),
    "key_in_use": ErrorCode(409, "a key cannot revoke itself"),
    "too_many_keys": ErrorCode(409, "the account has 50 keys"),
    "nothing_to_retry": ErrorCode(409, "the job has no failed image to retry"),
    "inputs_gone": ErrorCode(
        409,
        "the failed images were not given by URL, and they are not kept or no longer kept: see `keepInputsSeconds`. "
        "410 if a picture is asked for that is not kept",
    ),
    "results_expired": ErrorCode(410, "the results were deleted, because they are older than `RESULT_TTL`"),
    "delivery_gone": ErrorCode(410, "the job of this webhook was deleted, or its results have expired"),
    "length_required": ErrorCode(411, "the request has no `Content-Length`, or its body is chunked"),
    "rate_limited": ErrorCode(429, "the key has sent more requests than `RATE_LIMIT` allows", _LATER),
    "too_many_open_jobs": ErrorCode(429, "the account has `MAX_OPEN_JOBS` open jobs already", _LATER),
    "scratch_full": ErrorCode(
        429, "the open jobs and the kept images of all accounts together use `MAX_SCRATCH_BYTES` of scratch", _LATER
    ),
    "account_full": ErrorCode(429, "the account's jobs keep `MAX_STORED_BYTES` in the database", _LATER),
    "too_many_large_bodies": ErrorCode(
        429,
        "`MAX_LARGE_BODIES` bodies over 1 MB are being read, or the account's share of them, and none ended within 30 s",
        _LATER,
    ),
    "too_many_bodies": ErrorCode(429, "too many bodies arrive slowly at once, or too many of this account do", _LATER),
    "no_waiting_place": ErrorCode(
        429,
        "`MAX_WAITERS` requests wait already, or the account's share of them do; send `Prefer: respond-async` to not wait",
        _LATER,
    ),
    "too_many_previews": ErrorCode(
        429, "too many pictures are being prepared, or too many of this account are, and none was done in 30 s", _LATER
    ),
    "internal_error": ErrorCode(500, "the service failed; the cause is in its log"),
    "unavailable": ErrorCode(
        503, "the database or scratch is unavailable, and nothing was accepted. `Retry-After` says when to try again", _LATER
    ),
    "maybe_accepted": ErrorCode(
        503,
        "a connection within the service broke while the job was written, so the job may exist. "
        "With an `Idempotency-Key`, send the request again; without one, look at `GET /api/v1/jobs` first",
        _LATER,
    ),
    "storage_full": ErrorCode(
        503, "a disk or the bucket is full, and nothing was accepted. The operator of the service has to free space", _LATER
    ),
}

#: Code of pipeline/types.py → why one image has no answer.
ITEM_CODES: dict[str, str] = {
    "url_not_allowed": "the service does not fetch such a URL; its text alone shows why",
    "fetch_failed": "the image could not be fetched",
    "fetch_timeout": "the image did not arrive in 20 s",
    "image_too_large": "it is over 20 MB",
    "unsupported_format": "the bytes are not an image, or the image has a [format](formats.md) that is not supported",
    "image_empty": "the image has no bytes",
    "image_corrupt": "it can't be decoded",
    "image_too_many_pixels": "over 50 million pixels, or a side over 30,000",
    "image_too_complex": "decoding it takes too long or too much memory",
    "image_crashed_decoder": "decoding it crashed the decoder",
    "safety_blocked": "the model refused it for its content",
    "recitation": "the model would have recited known text",
    "output_truncated": "the answer for this image alone is longer than 8192 tokens",
    "schema_mismatch": "the model was asked three times, and gave no JSON record that fits the schema",
    "model_refused": "the model refuses this image each time",
    "model_unavailable": "the model failed on this image twice, or it could not be asked while a request was held open",
    "deadline_exceeded": "the job reached its deadline first; or, in the tier economy, what is left of `maxMoney` does not suffice for the "
    "standard price, at which the image had to be asked",
    "money_limit_reached": "what is left of the job's `maxMoney` does not suffice for the call",
    "cancelled": "the job ended before this image was processed",
    "worker_crashed": "two worker processes crashed while they processed only this image",
    "internal_error": "the service failed on this image's chunk, or has lost the image before it was read",
}

#: The codes of requests for a job. pipeline/request, api/body.py and api/accept.py raise them.
#: What a request may be refused with because of how its body arrives.
OF_BODIES = ("length_required", "body_too_large", "body_cut_short", "too_many_bodies")

OF_REQUESTS = (
    "bad_request",
    "invalid_json",
    *(field.code for field in FIELDS.values()),
    "engine_cannot",
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
    "max_money_too_low",
    "idempotency_key_reused",
    "length_required",
    "too_many_open_jobs",
    "scratch_full",
    "account_full",
    "maybe_accepted",
    "too_many_large_bodies",
    "too_many_bodies",
)

#: The codes of a picture that can't be shown.
OF_PICTURES = tuple(
    (400, code.value)
    for code in (
        ItemCode.UNSUPPORTED_FORMAT,
        ItemCode.IMAGE_EMPTY,
        ItemCode.IMAGE_CORRUPT,
        ItemCode.IMAGE_TOO_LARGE,
        ItemCode.IMAGE_TOO_MANY_PIXELS,
        ItemCode.IMAGE_TOO_COMPLEX,
        ItemCode.IMAGE_CRASHED_DECODER,
    )
)

#: The codes of a job that failed because no image succeeded, if the caller waited. The answer has the code of one image.
OF_IMAGES = tuple((400 if code in INPUT_FAULTS else 500, code.value) for code in ItemCode)
