"""Checks a request before anything is stored: first its fields as they are declared, then its images. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from pipeline.outbound.addresses import MAX_URL, Allowed
from pipeline.outbound.mistaken import LOOKED_AT, SENTENCES, kind_of
from pipeline.request.fields import FIELDS, LONGEST_DEADLINE, ExtractRequest
from pipeline.request.kinds import MOST_KEPT_SECONDS, Given, RequestField, Unfit
from pipeline.request.unknown import hint_for
from pipeline.types import MAX_IMAGE_BYTES, MAX_TOTAL_BYTES, MB, Tier

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
MOST_LOOKED_AT = 100  #: how many images are looked at to see whether a whole request mistakes base64 or files for URLs
MOST_OF_URL = 4 * MAX_URL + 4  #: bytes of a URL's text that are looked at: more than a URL may have, in UTF-8
_LINE_BREAKS = b"\r\n"
_DATA_URI = re.compile(rb"data:[^,]{0,200}?;base64,", re.IGNORECASE)


class RequestFault(Exception):
    """The request is refused, and nothing is stored."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  #: stable
        self.message = message  #: what is wrong, where, and how to fix it


def check(
    fields: Mapping[str, Any],
    images: Sequence[bytes] | None,
    *,
    webhook_allow: Sequence[Allowed] = (),
    models: Sequence[str] = (),
    uploaded: bool = False,
    unknown: Sequence[str] = (),
    max_input_ttl: int = MOST_KEPT_SECONDS,
) -> ExtractRequest:
    """Reads the request from `fields` (decoded JSON, without the images) and `images`.

    `images` is None if the body had none. `webhook_allow`, `models`, `uploaded` and `max_input_ttl` are as in Given. `unknown` are
    the names of the body's unknown fields, which are ignored; the error about a missing field says which of them may have been
    meant. Raises RequestFault.
    """
    given = Given(
        images=len(images or ()), uploaded=uploaded, models=models, webhook_allow=webhook_allow, max_input_ttl=max_input_ttl
    )
    values: dict[str, Any] = {**fields, "images": images}
    missing = [name for name, field in FIELDS.items() if field.required and values.get(name) is None]
    request = ExtractRequest(
        **{field.attribute: _read(field, values.get(name), given, unknown, missing) for name, field in FIELDS.items()}
    )
    if request.schema is not None and fields.get("granularity") == "merged":
        text = 'schema asks for one record for each image: leave granularity out, or send "perImage".'
        raise RequestFault("invalid_granularity", text)
    if request.time_limit > LONGEST_DEADLINE[request.tier]:
        text = f"deadlineSeconds may be at most {LONGEST_DEADLINE[request.tier]}, or {LONGEST_DEADLINE[Tier.ECONOMY]} in the tier economy."
        raise RequestFault("invalid_deadline_seconds", text)
    if request.evidence and not request.per_image:
        text = 'evidence needs a record for each image: send a schema, or "granularity": "perImage".'
        raise RequestFault("invalid_evidence", text)
    if request.review_when and not request.evidence:
        raise RequestFault("invalid_review_when", 'reviewWhen needs "evidence": true, which finds what is to be reviewed.')
    if request.input_method == "url" and all(text[:5].lower() == b"data:" for text in request.images):
        request = replace(request, input_method="base64")  # a data: URL holds the image itself
    if request.input_method == "url":
        # Longer texts are no URLs, whatever they go on with. They may be images of 20 MB each, so they are copied only once.
        request = replace(request, images=[text.strip()[:MOST_OF_URL] for text in request.images])
    _CHECKS[request.input_method](request.images)
    return request


def _read(field: RequestField, value: Any, given: Given, unknown: Sequence[str], missing: Sequence[str]) -> Any:
    try:
        return field.read(value, given)
    except Unfit as unfit:
        hint = hint_for(field.name, unknown, missing) if value is None else ""
        raise RequestFault(unfit.code or field.code, field.message(unfit, value) + hint) from None


def _check_urls(images: Sequence[bytes]) -> None:
    """Refuses a request without a URL. One bad URL is a failure of its image and not of the request."""
    if not any(text.strip() for text in images):
        raise RequestFault("image_empty", "images[0] is an empty string; send a URL.")
    kinds = [kind_of(text[:LOOKED_AT].decode("utf-8", "replace")) for text in islice(images, MOST_LOOKED_AT)]
    if len(images) <= MOST_LOOKED_AT and set(kinds) in ({"base64"}, {"file"}):
        raise RequestFault("invalid_images", f"images[0] is no URL: {SENTENCES[kinds[0]]}.")


def _check_base64(images: Sequence[bytes]) -> None:
    total = 0
    for index, text in enumerate(images):
        if text.isspace():
            continue
        try:
            size = base64_size(text)
        except ValueError as error:
            kind = kind_of(text[:LOOKED_AT].decode("utf-8", "replace"))
            what = f"{SENTENCES[kind]}." if kind in ("url", "file") else error
            raise RequestFault("invalid_base64", f"images[{index}] is not valid base64: {what}") from None
        total += size
        _check_size(index, size, total)
    if total == 0:
        raise RequestFault("image_empty", "images[0] is an empty string; send the image's bytes as base64.")


def _check_files(images: Sequence[bytes]) -> None:
    total = 0
    for index, data in enumerate(images):
        total += len(data)
        _check_size(index, len(data), total)
    if total == 0:
        raise RequestFault("image_empty", "images[0] is an empty file.")


def _check_size(index: int, size: int, total: int) -> None:
    if size > MAX_IMAGE_BYTES:
        raise RequestFault(
            "image_too_large", f"images[{index}] is {_megabytes(size)}; an image may have {_megabytes(MAX_IMAGE_BYTES)}."
        )
    if total > MAX_TOTAL_BYTES:
        raise RequestFault(
            "total_too_large",
            f"The images are over {_megabytes(MAX_TOTAL_BYTES)} in total, reached at images[{index}]; send fewer at once.",
        )


_CHECKS = {"url": _check_urls, "base64": _check_base64, "upload": _check_files}


def base64_payload(text: bytes) -> bytes:
    """The base64 digits of `text`, without a `data:` prefix and MIME line breaks. Raises ValueError."""
    if text[:5].lower() == b"data:":
        prefix = _DATA_URI.match(text)
        if not prefix:
            raise ValueError('the data URI has no ";base64," before its data.')
        text = text[prefix.end() :]
    if b"\n" in text or b"\r" in text:
        text = text.translate(None, _LINE_BREAKS)
    return text


def base64_size(text: bytes) -> int:
    """How many bytes `text` decodes to, computed without decoding. Raises ValueError with a text that says what is wrong."""
    digits = base64_payload(text)
    padding = 2 if digits.endswith(b"==") else 1 if digits.endswith(b"=") else 0
    odd = digits.translate(None, _ALPHABET)
    if len(odd) != padding:
        place = len(digits) - len(digits.lstrip(_ALPHABET))
        mend = ": this is URL-safe base64, so write + for - and / for _." if digits[place : place + 1] in (b"-", b"_") else "."
        raise ValueError(f"character {place} is outside the standard alphabet (A-Z a-z 0-9 + / and = at the end){mend}")
    if len(digits) % 4:
        raise ValueError(f"its length of {len(digits)} is no multiple of 4 (padding missing, or cut short).")
    return len(digits) // 4 * 3 - padding


def _megabytes(size: int) -> str:
    """`size` in MB (1024 x 1024). Adds the bytes if it is not a whole number, so that it never looks equal to a limit."""
    return f"{size / MB:.0f} MB" if size % MB == 0 else f"{size / MB:.1f} MB ({size} bytes)"
