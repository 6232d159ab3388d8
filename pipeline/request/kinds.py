"""The kinds of fields that a request may have. Pure.

A field is declared as an attribute of `pipeline.request.fields.ExtractRequest`. One of the functions at the end of this module
makes its default. The declaration holds everything about the field: how its value is read from JSON or from a form, its error
message, its JSON Schema in OpenAPI, and its row in the reference.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from pipeline.outbound.addresses import Allowed

T = TypeVar("T")
Name = TypeVar("Name", bound=str)
Schema = dict[str, Any]  #: a JSON Schema
#: How a part of a form is read. `json`: as JSON if it is valid JSON, else as text. `text`: always as text. `texts`: an array of
#: texts, sent as JSON or as one part for each text.
FormPart = Literal["json", "text", "texts"]

TELLS_VALUE = "{name} must be {wants}, not {value}."
TELLS_RULE = "{name} must be {wants}."

MOST_KEPT_SECONDS = 86_400  #: the longest time for which any service keeps what was uploaded

_ENTRY = "request field"  # the key of a declaration in the metadata of its dataclass field
_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


class Unfit(Exception):
    """A field's value cannot be used."""

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message  #: for the caller: what is wrong and how to fix it; empty: `RequestField.says` is used
        self.code = code  #: stable; empty: `RequestField.code` is used


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Facts about the request and the service that the check of a field's value needs."""

    images: int = 0  #: how many images the request has
    uploaded: bool = False  #: the images are files of a form
    models: Sequence[str] = ()  #: the models that a request may name; the first one is the default
    webhook_allow: Sequence[Allowed] = ()  #: private networks that a webhook may reach, in addition to public addresses
    max_input_ttl: int = MOST_KEPT_SECONDS  #: how many seconds a request may ask to keep what was uploaded


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestField:
    """The declaration of one field."""

    #: Converts the decoded JSON value to the attribute's value. Gets None if the field is missing or null. Raises Unfit.
    read: Callable[[Any, Given], Any]
    schema: Schema  #: JSON Schema of the values to send; it includes null if the field is optional
    wants: str  #: completes "must be …"; Markdown
    what: str  #: whole sentences that tell callers what the field does; Markdown, links relative to docs/reference
    required: bool = False
    default: Any = None  #: the JSON value that a missing field counts as; None: `what` describes it, or there is none
    says: str = TELLS_VALUE  #: the error message if `read` raises Unfit without one
    when: str = ""  #: completes "`name` …" in the table of error codes; empty: it is made from `wants`
    form: FormPart = "json"
    attribute: str = ""  #: its name in the code

    @property
    def name(self) -> str:
        """Its name in a body: `json_mode` is `jsonMode`."""
        first, *others = self.attribute.split("_")
        return first + "".join(other.capitalize() for other in others)

    @property
    def code(self) -> str:
        """The stable code of the error if its value cannot be used."""
        return f"invalid_{self.attribute}"

    @property
    def meaning_of_code(self) -> str:
        """When the API answers with `code`, for the table of error codes. Markdown."""
        wrong = f"is {'missing or ' if self.required else ''}not {_as_code(self.wants)}"
        return f"`{self.name}` {self.when or _without_links(wrong)}"

    @property
    def rule(self) -> str:
        """Its row in the table of fields in docs/reference/api.md. Markdown."""
        default = "" if self.default is None else f", default `{json.dumps(self.default)}`"
        return f"{'required' if self.required else 'optional'}: {_as_code(self.wants)}{default}. {self.what}"

    @property
    def json_schema(self) -> Schema:
        """Its JSON Schema in OpenAPI. It states the default only in words, because generated clients send a stated default."""
        wants = _as_code(self.wants)
        default = "" if self.default is None else f", default `{json.dumps(self.default)}`"
        description = f"{wants[0].upper()}{wants[1:]}{default}. {self.what}"
        return {"description": _without_links(description), **self.schema}

    def message(self, unfit: Unfit, value: Any) -> str:
        """The text of the error, for the caller."""
        wants = _without_links(self.wants)
        return unfit.message or self.says.format(name=self.name, wants=wants, value=shown(value))


def fields_of(request: type) -> dict[str, RequestField]:
    """The fields that the attributes of a dataclass declare, by their names in a body, in order of declaration."""
    declared_fields = (dataclasses.replace(field.metadata[_ENTRY], attribute=field.name) for field in dataclasses.fields(request))
    return {field.name: field for field in declared_fields}


def shown(value: Any) -> str:
    """A caller's value for an error text. It is cut short, because it may be a whole image."""
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def quoted(names: Sequence[str]) -> str:
    """`"a", "b", "c"`."""
    return ", ".join(f'"{name}"' for name in names) or "none"


def declared(
    *,
    read: Callable[[Any, Given], T],
    schema: Schema,
    wants: str,
    what: str,
    required: bool = False,
    default: Any = None,
    says: str = TELLS_VALUE,
    when: str = "",
    form: FormPart = "json",
) -> T:
    """Declares a field. The arguments are those of RequestField."""
    entry = RequestField(
        read=read, schema=schema, wants=wants, what=what, required=required, default=default, says=says, when=when, form=form
    )
    return cast("T", dataclasses.field(metadata={_ENTRY: entry}))  # so that type checkers see the attribute's type


def boolean(*, what: str, when: str = "") -> bool:
    """A boolean, false if it is missing. It accepts the strings "true" and "false" too, because an existing client sends them."""

    def read(value: Any, _: Given) -> bool:
        if value is None or isinstance(value, bool):
            return bool(value)
        if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        raise Unfit

    # The schema leaves the strings out, because clients that are generated for both types are awkward to use.
    return declared(read=read, schema={"type": ["boolean", "null"]}, wants="true or false", what=what, when=when, default=False)


def choice(names: Sequence[Name], *, default: T, what: str, wants: str = "", says: str = TELLS_VALUE, when: str = "") -> Name | T:
    """One of `names`; `default` if it is missing."""

    def read(value: Any, _: Given) -> Name | T:
        if value is None:
            return default
        for name in names:
            if value == name:
                return name
        raise Unfit

    wants = wants or f'{quoted(names[:-1])} or "{names[-1]}"'
    schema: Schema = {"enum": [*names, None]}
    return declared(read=read, schema=schema, wants=wants, what=what, says=says, when=when, default=default)


def whole(lowest: int, highest: int, *, default: T, what: str, says: str = TELLS_VALUE) -> int | T:
    """A whole number in that range; `default` if it is missing. A string of digits is accepted too, and so is 3600.0."""

    def read(value: Any, _: Given) -> int | T:
        return default if value is None else whole_number(value, lowest, highest)

    schema = {"type": ["integer", "null"], "minimum": lowest, "maximum": highest}
    wants = f"a whole number from {lowest} to {highest}"
    return declared(read=read, schema=schema, wants=wants, what=what, says=says, default=default)


def whole_number(value: Any, lowest: int, highest: int) -> int:
    """The value as a whole number in that range. Raises Unfit."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= 12:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise Unfit
    return value


def dollars(highest: int, *, what: str) -> float | None:
    """An amount of money over 0; None if it is missing. A string with a number is accepted too."""

    def read(value: Any, _: Given) -> float | None:
        if value is None:
            return None
        if isinstance(value, str) and _AMOUNT.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= highest:
            raise Unfit
        return float(value)

    schema = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": highest}
    return declared(read=read, schema=schema, wants=f"a number over 0 and at most {highest}", what=what, says=TELLS_RULE)


def _as_code(text: str) -> str:
    return re.sub(r'"\w+"', r"`\g<0>`", text)


def _without_links(text: str) -> str:
    return _LINK.sub(r"\1", text)
