"""The shape and the limits of a request, checked before anything is stored. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.addresses import Allowed, check_url
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_TOTAL_BYTES, MB, Question

InputMethod = Literal["url", "base64", "upload"]
METHODS = ("url", "base64")  #: those that a body of JSON may name

DEADLINE_SECONDS = 3600  #: where a request names none
SHORTEST_DEADLINE, LONGEST_DEADLINE = 10, 43_200

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LINE_BREAKS = b"\r\n"
_DATA_URI = re.compile(rb"data:[^,]{0,200}?;base64,", re.IGNORECASE)


class RequestFault(Exception):
    """The request is refused at the door."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  #: stable
        self.message = message  #: what, where and how to mend it


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request that may be accepted."""

    input_method: InputMethod
    images: Sequence[bytes]  #: the texts as sent (URL or base64), their JSON escapes undone, or files; possibly read on demand
    question: Question
    deadline_seconds: int = DEADLINE_SECONDS  #: from now; then the job ends with what it has
    webhook_url: str | None = None  #: who is told of the end


def check(
    fields: Mapping[str, Any], images: Sequence[bytes] | None, *, webhook_allow: Sequence[Allowed] = (), uploaded: bool = False
) -> Request:
    """The request in `fields` (decoded JSON, without the images) and `images`.

    `images` is None where the body had none; `webhook_allow`: networks that its webhook may reach beside public ones;
    `uploaded`: the images are files of a form, which needs no inputMethod.
    Unknown fields are ignored. Raises RequestFault.
    """
    method = "upload" if uploaded else fields.get("inputMethod")
    if not uploaded and (not isinstance(method, str) or method not in METHODS):
        raise RequestFault("invalid_input_method", f'inputMethod must be "url" or "base64", not {_shown(method)}.')
    if images is None:
        raise RequestFault("invalid_images", "images is required: an array of 1 to 3000 strings.")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise RequestFault("invalid_image_count", f"images must hold 1 to {MAX_IMAGES} strings, this request has {len(images)}.")
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestFault("invalid_prompt", "prompt is required: a text that says what to extract.")
    if any("\ud800" <= character <= "\udfff" for character in prompt) or "\x00" in prompt:
        raise RequestFault("invalid_prompt", "prompt holds characters that are no Unicode text.")
    question = Question(
        prompt=prompt,
        json_mode=_boolean(fields.get("jsonMode"), "jsonMode"),
        per_image=_granularity(fields.get("granularity")),
    )
    deadline_seconds = _deadline(fields.get("deadlineSeconds"))
    webhook_url = _webhook(fields.get("webhookUrl"), webhook_allow)
    input_method: InputMethod = "upload" if uploaded else "base64" if method == "base64" else "url"
    _CHECKS[input_method](images)
    return Request(
        input_method=input_method,
        images=images,
        question=question,
        deadline_seconds=deadline_seconds,
        webhook_url=webhook_url,
    )


def _boolean(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:  # an existing client sends strings
        return value.strip().lower() == "true"
    raise RequestFault(f"invalid_{_snake(name)}", f"{name} must be true or false, not {_shown(value)}.")


def _granularity(value: Any) -> bool:
    if value is None or (isinstance(value, str) and value in {"merged", "perImage"}):
        return value == "perImage"
    raise RequestFault("invalid_granularity", f'granularity must be "merged" or "perImage", not {_shown(value)}.')


def _deadline(value: Any) -> int:
    if value is None:
        return DEADLINE_SECONDS
    if isinstance(value, str) and value.strip().isdecimal():  # as jsonMode: forms send strings
        value = int(value) if len(value) < 10 else LONGEST_DEADLINE + 1
    if isinstance(value, float) and value.is_integer():  # 3600.0 is a whole number in JSON
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not SHORTEST_DEADLINE <= value <= LONGEST_DEADLINE:
        text = f"deadlineSeconds must be a whole number from {SHORTEST_DEADLINE} to {LONGEST_DEADLINE}, not {_shown(value)}."
        raise RequestFault("invalid_deadline_seconds", text)
    return value


def _webhook(value: Any, allow: Sequence[Allowed]) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise RequestFault("invalid_webhook_url", f"webhookUrl must be a URL, not {_shown(value)}.")
    fault = check_url(value.strip(), allow)
    if fault:
        raise RequestFault("invalid_webhook_url", f"webhookUrl can't be used. {fault}")
    return value.strip()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()


def _shown(value: Any) -> str:
    """A caller's value in an error text: cut short, and never a whole image."""
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _check_urls(images: Sequence[bytes]) -> None:
    """Only what makes the request itself wrong: a bad URL is a failure of its image."""
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
    """The base64 digits of `text`: without a `data:` prefix and MIME line breaks. Raises ValueError."""
    if text[:5].lower() == b"data:":
        prefix = _DATA_URI.match(text)
        if not prefix:
            raise ValueError('the data URI has no ";base64," before its data.')
        text = text[prefix.end() :]
    if b"\n" in text or b"\r" in text:
        text = text.translate(None, _LINE_BREAKS)
    return text


def base64_size(text: bytes) -> int:
    """How many bytes `text` decodes to, found without decoding. Raises ValueError saying what is wrong with it."""
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
    """`size` in MB (1024 x 1024), never rounded down to a limit that it is over."""
    return f"{size / MB:.0f} MB" if size % MB == 0 else f"{size / MB:.1f} MB ({size} bytes)"
