"""The fields of a request, each declared once. Pure.

The modules that read bodies (`api/body.py`, `api/uploads.py`), the check, the OpenAPI document, the table of error codes and the
reference use these declarations. To add a field, add an attribute to ExtractRequest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any, Literal

from pipeline.outbound.addresses import FOR_BUCKETS, MAY_BE_ALLOWED, check_url
from pipeline.records.dialects import read_schema
from pipeline.records.schema import SchemaFault, check_schema
from pipeline.request.kinds import (
    MOST_KEPT_SECONDS,
    TELLS_RULE,
    Given,
    Unfit,
    boolean,
    choice,
    declared,
    dollars,
    fields_of,
    quoted,
    shown,
    whole,
    whole_number,
)
from pipeline.types import MAX_IMAGES, MAX_IMAGES_PER_CALL, Detail, MergeMode, Question, Review, Thinking, Tier

InputMethod = Literal["url", "base64", "upload"]
Granularity = Literal["merged", "perImage"]
OnError = Literal["partial", "fail"]
METHODS: tuple[InputMethod, ...] = ("url", "base64")  #: the methods that a JSON body may name
GRANULARITIES: tuple[Granularity, ...] = ("merged", "perImage")
MERGE_MODES: tuple[MergeMode, ...] = ("auto", "concat", "synthesize")
ON_ERROR: tuple[OnError, ...] = ("partial", "fail")

LONGEST_PROMPT = 100_000  #: characters; it is sent with each call, and stored with the job
LONGEST_SCHEMA_TEXT = 1 << 20  #: of a schema that comes as a text; the schema itself may have far less
LONGEST_CUSTOM_ID = 256  #: characters
LONGEST_NAME = 200  #: characters
DEADLINE = {Tier.STANDARD: 3600, Tier.ECONOMY: 14_400}  #: seconds that a job may take, if its request does not say it
SHORTEST_DEADLINE = 10  #: seconds
LONGEST_DEADLINE = {Tier.STANDARD: 43_200, Tier.ECONOMY: 86_400}  #: seconds
LONGEST_BATCH = 64  #: characters
MOST_METADATA = 4096  #: bytes as JSON, because it is sent with each webhook, whose body has at most 20 kB
DEEPEST_METADATA = 20  #: levels of nested objects and arrays
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))
_LOCALHOST = re.compile(r"https?://((?:[\w-]+\.)*localhost)\.?(?::\d+)?(?:[/?#]|$)", re.IGNORECASE)


def _input_method(value: Any, given: Given) -> InputMethod:
    if given.uploaded:
        return "upload"
    for method in METHODS:
        if value == method:
            return method
    raise Unfit


def _images(value: Sequence[bytes] | None, given: Given) -> Sequence[bytes]:
    if value is None:
        raise Unfit(f"images is required: an array of 1 to {MAX_IMAGES} strings.")
    if given.uploaded and not value:
        text = 'The form has no file. Send 1 to {} files in parts named images, with curl: -F "images=@receipt.jpg".'
        raise Unfit(text.format(MAX_IMAGES), "invalid_image_count")
    if not 1 <= len(value) <= MAX_IMAGES:
        text = f"images must hold 1 to {MAX_IMAGES} strings, this request has {len(value)}."
        raise Unfit(text, "invalid_image_count")
    return value


def _prompt(value: Any, _: Given) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unfit("prompt is required: a text that says what to extract.")
    if len(value) > LONGEST_PROMPT:
        raise Unfit(f"prompt has {len(value)} characters, at most {LONGEST_PROMPT} are taken.")
    if not is_storable(value):
        raise Unfit("prompt holds characters that are no Unicode text.")
    return value


def _schema(value: Any, _: Given) -> dict[str, Any] | None:
    if isinstance(value, str):
        if len(value) > LONGEST_SCHEMA_TEXT:
            raise Unfit(f"schema is a text of {len(value)} characters, at most {LONGEST_SCHEMA_TEXT} are read.")
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise Unfit("schema is a text that is not JSON; send a JSON Schema as an object.") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Unfit(f"schema must be an object, the JSON Schema of one image's record, not {shown(value)}.")
    try:
        schema = read_schema(value)
        check_schema(schema)
    except SchemaFault as fault:
        raise Unfit(f"schema can't be used: {fault}") from None
    return schema


def _model(value: Any, given: Given) -> str:
    if value is None:
        return given.models[0] if given.models else ""
    if value not in given.models:
        raise Unfit(f"model must be one of {quoted(given.models)}, not {shown(value)}.")
    return str(value)


def _fallback_models(value: Any, given: Given) -> tuple[str, ...]:
    """The names in the caller's order, without repetitions."""
    if value is None:
        return ()
    unknown = [name for name in value if name not in given.models] if isinstance(value, list) else [value]
    if unknown:
        text = f"fallbackModels must be an array with any of {quoted(given.models)}; {shown(unknown[0])} is none of them."
        raise Unfit(text)
    return tuple(dict.fromkeys(value))


def _review_when(value: Any, _: Given) -> tuple[Review, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value) or set(value) - set(Review):
        raise Unfit
    return tuple(Review(word) for word in dict.fromkeys(value))


def _webhook_url(value: Any, given: Given) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise Unfit(f"webhookUrl must be a URL, not {shown(value)}.")
    fault = check_url(value.strip(), given.webhook_allow) or _local_fault(value.strip(), given)
    if fault:
        # The texts are those of the URLs of images, and a webhook is no object in a bucket.
        raise Unfit(f"webhookUrl can't be used. {fault.replace('FETCH_ALLOW', 'WEBHOOK_ALLOW').replace(f' {FOR_BUCKETS}', '')}")
    return value.strip()


def _local_fault(url: str, given: Given) -> str:
    """What is wrong with a URL of the service's own machine, which is never public. Empty: nothing."""
    host = _LOCALHOST.match(url)
    if not host or any(address in entry.network for entry in given.webhook_allow for address in _LOOPBACK):
        return ""
    return f"{host[1]} is the machine of the service itself, and not a public address. {MAY_BE_ALLOWED}"


def _custom_ids(value: Any, given: Given) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != given.images:
        have = f", this request has {len(value)}" if isinstance(value, list) else ""
        raise Unfit(f"customIds must be an array of {given.images} strings, one for each image{have}.")
    for index, custom_id in enumerate(value):
        if not isinstance(custom_id, str) or not is_storable(custom_id) or not 1 <= len(custom_id) <= LONGEST_CUSTOM_ID:
            raise Unfit(f"customIds[{index}] must be a string of 1 to {LONGEST_CUSTOM_ID} characters.")
    return tuple(value)


def _deadline_seconds(value: Any, _: Given) -> int | None:
    """The seconds, as far as they are right in some tier. `pipeline.request.check` compares them with the request's tier."""
    return None if value is None else whole_number(value, SHORTEST_DEADLINE, LONGEST_DEADLINE[Tier.ECONOMY])


def _keep_inputs_seconds(value: Any, given: Given) -> int:
    seconds = 0 if value is None else whole_number(value, 0, MOST_KEPT_SECONDS)
    if seconds > given.max_input_ttl:
        raise Unfit(f"keepInputsSeconds may be at most {given.max_input_ttl} on this service (MAX_INPUT_TTL), not {seconds}.")
    return seconds


def _metadata(value: Any, _: Given) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Unfit("metadata must be an object.")
    if _depth(value) > DEEPEST_METADATA:
        raise Unfit(f"metadata may have {DEEPEST_METADATA} objects and arrays in each other.")
    size = len(json.dumps(value, separators=(",", ":")))
    if size > MOST_METADATA:
        raise Unfit(f"metadata has {size} bytes as JSON; the most is {MOST_METADATA}.")
    return value


def _name(value: Any, _: Given) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or not is_storable(value) or len(value.strip()) > LONGEST_NAME:
        raise Unfit(f"name must be a text of at most {LONGEST_NAME} characters.")
    return value.strip()


def _batch(value: Any, _: Given) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not is_storable(value) or len(value) > LONGEST_BATCH:
        raise Unfit(f"batch must be a string of at most {LONGEST_BATCH} characters.")
    return value


def is_storable(text: str) -> bool:
    """Whether every database can store the text. It may have neither NUL nor lone surrogates.

    A loop over the characters would hold the interpreter for 1 s with a text of 10 MB, so the library's functions look.
    """
    try:
        return "\x00" not in text and (text.isascii() or text.encode() != b"")
    except UnicodeEncodeError:
        return False


def _depth(value: Any) -> int:
    """How many levels of objects and arrays are nested. It does not recurse, because the caller decides how deep the value is."""
    deepest, left = 0, [(value, 1)]
    while left and deepest <= DEEPEST_METADATA:
        inner, depth = left.pop()
        if isinstance(inner, dict | list):
            deepest = max(deepest, depth)
            left += [(each, depth + 1) for each in (inner.values() if isinstance(inner, dict) else inner)]
    return deepest


_OF_QUESTION = tuple(attribute.name for attribute in fields(Question))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractRequest:
    """A request that has passed the check of its fields.

    Each attribute is a field of the body: `json_mode` is read from `jsonMode`, and refused with the code `invalid_json_mode`. The
    fields are checked in this order, so the error names the first field that is wrong.
    """

    input_method: InputMethod = declared(
        read=_input_method,
        schema={"type": "string", "enum": [*METHODS]},
        wants='"url" or "base64"',
        what="What `images` holds. A form does not need it.",
        required=True,
    )
    #: The URLs or base64 texts without JSON escapes, or the bytes of files. An image may be read only when it is accessed.
    images: Sequence[bytes] = declared(
        read=_images,
        schema={
            "type": "array",
            "items": {"type": "string", "description": "A URL, or an image's bytes as base64. An empty string fails alone."},
            "contains": {"pattern": r"\S"},
            "minItems": 1,
            "maxItems": MAX_IMAGES,
        },
        wants=f"an array of 1 to {MAX_IMAGES} strings",
        what="All of them are URLs, or all are base64. If `images` is missing and `image` is a string, that is the one image.",
        required=True,
        when="is missing, is not an array, or has an element that is not a string",
    )
    #: As sent.
    prompt: str = declared(
        read=_prompt,
        schema={"type": "string", "maxLength": LONGEST_PROMPT, "pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"},
        wants=f"text that is not blank, at most {LONGEST_PROMPT:,} characters",
        what="It says what to extract.",
        required=True,
        when="is missing, blank, too long, or not Unicode text",
        form="text",
    )
    json_mode: bool = boolean(what='Whether `results` is JSON. The strings `"true"` and `"false"` are taken too.')
    granularity: Granularity = choice(
        GRANULARITIES,
        default="merged",
        what='One answer for all images together, or one for each image. With `schema` it is `"perImage"`.',
        when='is not `"merged"` or `"perImage"`, or is `"merged"` beside a `schema`',
    )
    #: The JSON Schema of one image's record.
    schema: dict[str, Any] | None = declared(
        read=_schema,
        schema={"type": ["object", "null"]},
        wants="an object, also as text",
        what="The [JSON Schema of one image's record](../how-to/records.md): each image gets a record that fits it.",
        when="is not a JSON Schema that can be used; the text says where and why",
    )
    merge: MergeMode = choice(MERGE_MODES, default="auto", what="How the answers of several calls [become one](#200).")
    #: None: as the settings say.
    images_per_call: int | None = whole(
        1,
        MAX_IMAGES_PER_CALL,
        default=None,
        what="How many images a model call has at most. Without it: `IMAGES_PER_CALL`, for merged answers `MERGED_PER_CALL`.",
    )
    cache: bool = boolean(
        what="Whether a record that the account got before [may be taken](../how-to/records.md#do-not-ask-twice) "
        "instead of a model call. Takes strings as `jsonMode` does."
    )
    evidence: bool = boolean(
        what="Whether each value of a record is [looked for in the picture](../explanation/evidence.md) by the service's own OCR, so "
        'that you see where it stands, or that it does not. It needs `schema`, or `granularity` `"perImage"`. The records stay as '
        "they are, and it costs no credits.",
        when="is not true or false, or is true for answers that are merged",
    )
    #: Without repetitions.
    review_when: tuple[Review, ...] = declared(
        read=_review_when,
        schema={"type": ["array", "null"], "items": {"type": "string", "enum": [word.value for word in Review]}},
        wants=f"an array with any of {quoted(list(Review))}",
        what="When an image [needs a review](../explanation/evidence.md#what-needs-a-review) by a person. It needs `evidence`.",
        when='is not an array with any of `"unsupported"`, `"lowConfidence"`, `"failed"`, or stands without `evidence`',
        form="texts",
    )
    #: Empty: the engine's default model.
    model: str = declared(
        read=_model,
        schema={"type": ["string", "null"]},
        wants="one of [`MODELS`](settings.md#models)",
        what="The model that is asked. Without it: `MODEL`.",
        when="is not one of `MODELS`; the text lists them",
    )
    fallback_models: tuple[str, ...] = declared(
        read=_fallback_models,
        schema={"type": ["array", "null"], "items": {"type": "string"}},
        wants="an array with any of [`MODELS`](settings.md#models)",
        what="They are asked in turn if the model before cannot be asked: its quota of the day is used up, it stays overloaded, "
        "or it is gone.",
        form="texts",
    )
    detail: Detail = choice(
        list(Detail),
        default=Detail.HIGH,
        wants=f"one of {quoted(list(Detail))}",
        what="How closely the model looks at each picture. Less costs fewer tokens.",
    )
    #: None: the model's own default.
    thinking: Thinking | None = choice(
        list(Thinking),
        default=None,
        wants=f"one of {quoted(list(Thinking))}",
        what="How much the model thinks before it answers. Thoughts are billed as output. Without it: as the model does by itself.",
    )
    tier: Tier = choice(
        list(Tier),
        default=Tier.STANDARD,
        what="How the model's server serves the calls. In `economy` they cost less, and their answers take minutes or longer; all of "
        "them are there [before the deadline](../how-to/economy.md).",
        when='is not `"standard"` or `"economy"`, or is `"economy"` and the engine or the model has no such tier',
    )
    #: As sent; `time_limit` has the default. Counted from accept on. At the deadline the job ends with the results that it has.
    deadline_seconds: int | None = declared(
        read=_deadline_seconds,
        schema={"type": ["integer", "null"], "minimum": SHORTEST_DEADLINE, "maximum": LONGEST_DEADLINE[Tier.ECONOMY]},
        wants=f"a whole number from {SHORTEST_DEADLINE} to {LONGEST_DEADLINE[Tier.STANDARD]}, or to "
        f"{LONGEST_DEADLINE[Tier.ECONOMY]} in the tier economy",
        what=f"Counted in seconds from accept on. Then the job ends with what it has. Without it: {DEADLINE[Tier.STANDARD]}, in the tier "
        f"economy {DEADLINE[Tier.ECONOMY]}.",
    )
    #: Gets the event of the job's end.
    webhook_url: str | None = declared(
        read=_webhook_url,
        schema={"type": ["string", "null"], "pattern": r"^\s*(?:[Hh][Tt][Tt][Pp][Ss]?://[!-~]+\s*)?$"},
        wants="an http or https URL that leads to a public address",
        what="It is called when the job ends: see [Webhooks](#webhooks).",
        when="is not a URL that may be called",
    )
    #: The caller's names of the images, in their order.
    custom_ids: tuple[str, ...] | None = declared(
        read=_custom_ids,
        schema={
            "type": ["array", "null"],
            "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_CUSTOM_ID, "pattern": r"^[^\x00]*$"},
            "maxItems": MAX_IMAGES,
        },
        wants=f"an array with a string of 1 to {LONGEST_CUSTOM_ID} characters for each image",
        what="Your own names for the images. Each is echoed wherever its image is reported.",
        form="texts",
    )
    on_error: OnError = choice(
        ON_ERROR,
        default="partial",
        what='With `"fail"`, one failed image makes the whole job fail: it shows no results and costs nothing.',
        says=TELLS_RULE,
    )
    #: The most that the job may cost.
    max_credits: int | None = whole(
        0,
        1_000_000_000,
        default=None,
        what="The request is refused if it may cost more. It may cost 10 credits, and 1 for each image.",
        says=TELLS_RULE,
    )
    #: The most that the model calls of the job may cost, in dollars.
    max_money: float | None = dollars(
        1_000_000,
        what="The most dollars that the model calls may cost, by the prices in [`MODELS`](settings.md#models). The request is refused "
        "if its [estimate](#post-apiv1extract-imageestimate) is higher. Images for which the money does not suffice fail with "
        "`money_limit_reached`. A model without a price costs 0, so it is never limited.",
    )
    #: How long the bytes of uploaded images are kept after the job's end.
    keep_inputs_seconds: int = declared(
        read=_keep_inputs_seconds,
        schema={"type": ["integer", "null"], "minimum": 0, "maximum": MOST_KEPT_SECONDS},
        wants=f"a whole number from 0 to {MOST_KEPT_SECONDS}, at most [`MAX_INPUT_TTL`](settings.md)",
        what="How long images that were sent as base64 or as files are kept after the job's end, so that those that failed can be "
        "[retried](#ending-retrying-deleting). With 0 they are deleted when the job ends. Images sent by URL are never kept.",
        default=0,
    )
    metadata: dict[str, Any] | None = declared(
        read=_metadata,
        schema={"type": ["object", "null"]},
        wants=f"an object of at most {MOST_METADATA} bytes as JSON, {DEEPEST_METADATA} levels deep",
        what="Your own data, echoed with the job.",
        when=f"is not an object, is nested too deeply, or has over {MOST_METADATA} bytes as JSON",
    )
    name: str | None = declared(
        read=_name,
        schema={"type": ["string", "null"], "maxLength": LONGEST_NAME, "pattern": r"^[^\x00]*$"},
        wants=f"a text of at most {LONGEST_NAME} characters",
        what="What people call the job. Lists show it and find the job by it.",
        when=f"is not a text of at most {LONGEST_NAME} characters, or is empty where a key is made",
        form="text",
    )
    batch: str | None = declared(
        read=_batch,
        schema={"type": ["string", "null"], "maxLength": LONGEST_BATCH, "pattern": r"^[^\x00]*$"},
        wants=f"a string of at most {LONGEST_BATCH} characters",
        what="Your own id of several jobs that belong together, such as the parts of a folder with more images than a request takes. "
        "`GET /jobs?batch=` lists them.",
        form="text",
    )

    @property
    def time_limit(self) -> int:
        """How many seconds the job may take."""
        return DEADLINE[self.tier] if self.deadline_seconds is None else self.deadline_seconds

    @property
    def per_image(self) -> bool:
        """Whether each image has a result of its own."""
        return self.granularity == "perImage" or self.schema is not None

    @property
    def question(self) -> Question:
        """What the model is asked. Each attribute of Question is one of the request's."""
        return Question(**{name: getattr(self, name) for name in _OF_QUESTION})


FIELDS = fields_of(ExtractRequest)  #: by their names in a body, in the order of the reference
