"""The components of the OpenAPI document for requests that make a job.

The schemas of a request's fields come from the declarations in `pipeline/request/fields.py`.
"""

from __future__ import annotations

from api.openapi.building import MONEY, Schema, number, or_null, record, ref, several, text
from pipeline.request.fields import FIELDS, METHODS
from pipeline.request.kinds import RequestField
from pipeline.types import MAX_IMAGES


def _own_type(field: RequestField) -> Schema | None:
    """The schema of a field that has a component of its own: a choice, or an object with any members. It leaves null out."""
    if None in field.schema.get("enum", ()):
        return text(enum=[value for value in field.schema["enum"] if value is not None])
    if field.schema.get("type") == ["object", "null"]:
        return {"type": "object", "additionalProperties": True}
    return None


def _type_name(field: RequestField) -> str:
    """The name of the field's component: `onError` has `OnError`."""
    return "RecordSchema" if field.name == "schema" else field.name[0].upper() + field.name[1:]


def _for_clients(field: RequestField) -> Schema:
    """The schema of a field, written so that a generated client has one type for it in JSON and in forms."""
    if _own_type(field) is None:
        return field.json_schema
    return {"description": field.json_schema["description"], **or_null(ref(_type_name(field)))}


#: The fields of both POSTs that make a job, in the order of the reference.
REQUEST_FIELDS: dict[str, Schema] = {name: _for_clients(field) for name, field in FIELDS.items()}
OWN_TYPES: dict[str, Schema] = {_type_name(field): own for field in FIELDS.values() if (own := _own_type(field))}
#: `openapi-generator` writes the class `Form`, which the clients in TypeScript import, only if a JSON body refers to it too. The
#: `not` is such a reference. It refuses nothing, because a text is never an object.
_IMAGE = text("The one image, if `images` is missing.", pattern=r"\S", **{"not": ref("Form")})
_REQUIRED = [name for name, field in FIELDS.items() if field.required and name != "images"]  # `image` may replace `images`


def _in_form(field: RequestField) -> Schema:
    """The schema of a field in a form."""
    schema = REQUEST_FIELDS[field.name]
    if field.form != "texts":
        return schema
    array = {name: value for name, value in schema.items() if name not in {"description", "type"}}
    return {
        "description": f"{schema['description']} Send it as JSON, or send one part for each element, whose text is taken as it is.",
        "anyOf": [{"type": "array", **array}, text(), {"type": "null"}],
    }


_DIGIT, _BREAKS = "[A-Za-z0-9+/]", r"[\r\n]*"
_FOUR = f"(?:{_DIGIT}{_BREAKS})"
#: The base64 that pipeline/request/check.py takes: standard alphabet and padding, line breaks anywhere, optional `data:` prefix.
BASE64 = (
    r"^(?:[Dd][Aa][Tt][Aa]:[^,]{0,200};[Bb][Aa][Ss][Ee]64,)?"
    f"{_BREAKS}(?:{_FOUR}{{4}})*(?:{_FOUR}{{4}}|{_FOUR}{{3}}={_BREAKS}|{_FOUR}{{2}}={_BREAKS}={_BREAKS})$"
)
#: The same, or nothing: an empty string among images fails alone.
BASE64_OR_EMPTY = rf"{BASE64[:-1]}?$|^\s*$"

REQUESTS: dict[str, Schema] = {
    "Request": {
        **record(
            {name: REQUEST_FIELDS[name] for name in _REQUIRED},
            {**{name: schema for name, schema in REQUEST_FIELDS.items() if name not in _REQUIRED}, "image": _IMAGE},
            "Unknown fields are ignored, and named in the job's `warnings`.",
        ),
        # A request must have `images` or `image`. The rule is attached to `prompt`, which every request has. An `anyOf` or a
        # `not` here would not do, because client generators and /docs take it for the whole description of the body.
        "dependentSchemas": {"prompt": {"not": {"properties": {"images": {"not": {}}, "image": {"not": {}}}}}},
        "if": {"properties": {"inputMethod": {"const": "base64"}}},
        "then": {
            "properties": {
                "images": {"items": {"pattern": BASE64_OR_EMPTY}, "contains": {"pattern": BASE64}},
                "image": {"pattern": BASE64},
            }
        },
    },
    "Form": record(
        {
            "images": several(
                text(format="binary", minLength=1), "Files, each with a filename.", minItems=1, maxItems=MAX_IMAGES
            ),
            "prompt": REQUEST_FIELDS["prompt"],
        },
        {name: _in_form(field) for name, field in FIELDS.items() if name not in {"inputMethod", "images", "prompt"}},
        "What is no text (numbers, objects, arrays) is sent as JSON. `inputMethod` is not needed.",
    ),
    "Picture": text("The bytes of one image.", format="binary", minLength=1),
    **OWN_TYPES,
    "JobRequest": record(
        {
            "inputMethod": text("`form`: the images were sent as files.", enum=[*METHODS, "form"]),
            **{
                name: REQUEST_FIELDS[name]
                for name in (
                    "prompt",
                    "jsonMode",
                    "granularity",
                    "schema",
                    "merge",
                    "imagesPerCall",
                    "cache",
                    "evidence",
                    "reviewWhen",
                    "model",
                    "fallbackModels",
                    "detail",
                    "thinking",
                    "onError",
                    "tier",
                    "deadlineSeconds",
                    "keepInputsSeconds",
                    "maxMoney",
                    "webhookUrl",
                    "metadata",
                    "name",
                    "batch",
                )
            },
        },
        what="The fields of a job's request, as sent or as their default, without its images.",
    ),
    "Estimate": record(
        {
            "images": number(),
            "modelCalls": number(),
            "inputTokens": number(),
            "outputTokens": number(),
            "credits": number("The most that it may cost."),
            "money": MONEY,
            "moneyByTier": {**ref("MoneyByTier"), "description": "`money` if all calls are served in that tier."},
        },
        {"warnings": several(text(), "Only where there are some, for a person.")},
    ),
}
