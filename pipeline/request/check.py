"""The shape and the limits of a request, checked before anything is stored. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pipeline.outbound.addresses import Allowed, check_url
from pipeline.records.schema import SchemaFault, check_schema
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_IMAGES_PER_CALL, MAX_TOTAL_BYTES, MB, Detail, MergeMode, Question

InputMethod = Literal["url", "base64", "upload"]
METHODS = ("url", "base64")  #: those that a body of JSON may name
MERGE_MODES: tuple[MergeMode, ...] = get_args(MergeMode)

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
class ExtractRequest:
    """A request that may be accepted."""

    input_method: InputMethod
    images: Sequence[bytes]  #: the texts as sent (URL or base64), their JSON escapes undone, or files; possibly read on demand
    question: Question
    deadline_seconds: int = DEADLINE_SECONDS  #: from now; then the job ends with what it has
    webhook_url: str | None = None  #: who is told of the end


def check(
    fields: Mapping[str, Any],
    images: Sequence[bytes] | None,
    *,
    webhook_allow: Sequence[Allowed] = (),
    models: Sequence[str] = (),
    uploaded: bool = False,
) -> ExtractRequest:
    """The request in `fields` (decoded JSON, without the images) and `images`.

    `images` is None where the body had none; `webhook_allow`: networks that its webhook may reach beside public ones;
    `models`: those it may name, the first one for who names none; `uploaded`: the images are files of a form, which needs no
    inputMethod. Unknown fields are ignored. Raises RequestFault.
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
    schema = _schema(fields.get("schema"))
    question = Question(
        prompt=prompt,
        json_mode=_boolean(fields.get("jsonMode"), "jsonMode"),
        per_image=_granularity(fields.get("granularity"), schema),
        schema=schema,
        merge=_merge(fields.get("merge")),
        images_per_call=_images_per_call(fields.get("imagesPerCall")),
        cache=_boolean(fields.get("cache"), "cache"),
        model=_model(fields.get("model"), models),
        fallback_models=_fallback_models(fields.get("fallbackModels"), models),
        detail=_detail(fields.get("detail")),
    )
    deadline_seconds = _deadline(fields.get("deadlineSeconds"))
    webhook_url = _webhook(fields.get("webhookUrl"), webhook_allow)
    input_method: InputMethod = "upload" if uploaded else "base64" if method == "base64" else "url"
    _CHECKS[input_method](images)
    return ExtractRequest(
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


def _schema(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):  # as jsonMode: forms send strings
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise RequestFault("invalid_schema", "schema is a text that is not JSON; send a JSON Schema as an object.") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        text = f"schema must be an object, the JSON Schema of one image's record, not {_shown(value)}."
        raise RequestFault("invalid_schema", text)
    try:
        check_schema(value)
    except SchemaFault as fault:
        raise RequestFault("invalid_schema", f"schema can't be used: {fault}") from None
    return value


def _granularity(value: Any, schema: dict[str, Any] | None) -> bool:
    """Whether each image has a result of its own."""
    if value is not None and not (isinstance(value, str) and value in {"merged", "perImage"}):
        raise RequestFault("invalid_granularity", f'granularity must be "merged" or "perImage", not {_shown(value)}.')
    if schema is not None and value == "merged":
        text = 'schema asks for one record for each image: leave granularity out, or send "perImage".'
        raise RequestFault("invalid_granularity", text)
    return value == "perImage" or schema is not None


def _merge(value: Any) -> MergeMode:
    for mode in MERGE_MODES:
        if value == mode:
            return mode
    if value is None:
        return "auto"
    raise RequestFault("invalid_merge", f'merge must be "auto", "concat" or "synthesize", not {_shown(value)}.')


def _images_per_call(value: Any) -> int | None:
    if value is None:
        return None
    number = _whole(value)
    if number is None or not 1 <= number <= MAX_IMAGES_PER_CALL:
        text = f"imagesPerCall must be a whole number from 1 to {MAX_IMAGES_PER_CALL}, not {_shown(value)}."
        raise RequestFault("invalid_images_per_call", text)
    return number


def _model(value: Any, models: Sequence[str]) -> str:
    if value is None:
        return models[0] if models else ""
    if value not in models:
        raise RequestFault("invalid_model", f"model must be one of {_named(models)}, not {_shown(value)}.")
    return str(value)


def _fallback_models(value: Any, models: Sequence[str]) -> tuple[str, ...]:
    """Each once, in the caller's order."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(name in models for name in value):
        odd = value if not isinstance(value, list) else next(name for name in value if name not in models)
        text = f"fallbackModels must be an array with any of {_named(models)}; {_shown(odd)} is none of them."
        raise RequestFault("invalid_fallback_models", text)
    return tuple(dict.fromkeys(value))


def _detail(value: Any) -> Detail:
    if value is None:
        return Detail.HIGH
    if not isinstance(value, str) or value not in set(Detail):
        raise RequestFault("invalid_detail", f"detail must be one of {_named(list(Detail))}, not {_shown(value)}.")
    return Detail(value)


def _named(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"


def _deadline(value: Any) -> int:
    if value is None:
        return DEADLINE_SECONDS
    number = _whole(value)
    if number is None or not SHORTEST_DEADLINE <= number <= LONGEST_DEADLINE:
        text = f"deadlineSeconds must be a whole number from {SHORTEST_DEADLINE} to {LONGEST_DEADLINE}, not {_shown(value)}."
        raise RequestFault("invalid_deadline_seconds", text)
    return number


def _whole(value: Any) -> int | None:
    """The number, also of a text: as jsonMode, forms send strings. None: it is no whole number."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, float) and value.is_integer():  # 3600.0 is a whole number in JSON
        return int(value)
    return None if isinstance(value, bool) or not isinstance(value, int) else value


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
