"""Checks a request before anything is stored: first its fields as they are declared, then its images. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.outbound.addresses import Allowed
from pipeline.request.fields import FIELDS, ExtractRequest
from pipeline.request.kinds import MOST_KEPT_SECONDS, Given, RequestField, Unfit
from pipeline.types import MAX_IMAGE_BYTES, MAX_TOTAL_BYTES, MB

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
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
    max_input_ttl: int = MOST_KEPT_SECONDS,
) -> ExtractRequest:
    """Reads the request from `fields` (decoded JSON, without the images) and `images`.

    `images` is None if the body had none. `webhook_allow`, `models`, `uploaded` and `max_input_ttl` are as in Given. Unknown fields are ignored.
    Raises RequestFault.
    """
    given = Given(
        images=len(images or ()), uploaded=uploaded, models=models, webhook_allow=webhook_allow, max_input_ttl=max_input_ttl
    )
    values: dict[str, Any] = {**fields, "images": images}
    request = ExtractRequest(**{field.attribute: _read(field, values.get(name), given) for name, field in FIELDS.items()})
    if request.schema is not None and fields.get("granularity") == "merged":
        text = 'schema asks for one record for each image: leave granularity out, or send "perImage".'
        raise RequestFault("invalid_granularity", text)
    _CHECKS[request.input_method](request.images)
    return request


def _read(field: RequestField, value: Any, given: Given) -> Any:
    try:
        return field.read(value, given)
    except Unfit as unfit:
        raise RequestFault(unfit.code or field.code, field.message(unfit, value)) from None


def _check_urls(images: Sequence[bytes]) -> None:
    """Refuses empty strings only, because a bad URL is a failure of its image and not of the request."""
    for index, text in enumerate(images):
        if not text.strip():
            raise RequestFault("image_empty", f"images[{index}] is an empty string; send a URL.")


def _check_base64(images: Sequence[bytes]) -> None:
    total = 0
    for index, text in enumerate(images):
        try:
            size = base64_size(text)
        except ValueError as error:
            raise RequestFault("invalid_base64", f"images[{index}] is not valid base64: {error}") from None
        if size == 0:
            raise RequestFault("image_empty", f"images[{index}] is an empty string; send the image's bytes as base64.")
        total += size
        _check_size(index, size, total)


def _check_files(images: Sequence[bytes]) -> None:
    total = 0
    for index, data in enumerate(images):
        if not data:
            raise RequestFault("image_empty", f"images[{index}] is an empty file.")
        total += len(data)
        _check_size(index, len(data), total)


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
        raise ValueError(f"character {place} is outside the standard alphabet (A-Z a-z 0-9 + / and = at the end).")
    if len(digits) % 4:
        raise ValueError(f"its length of {len(digits)} is no multiple of 4 (padding missing, or cut short).")
    return len(digits) // 4 * 3 - padding


def _megabytes(size: int) -> str:
    """`size` in MB (1024 x 1024). Adds the bytes if it is not a whole number, so that it never looks equal to a limit."""
    return f"{size / MB:.0f} MB" if size % MB == 0 else f"{size / MB:.1f} MB ({size} bytes)"
