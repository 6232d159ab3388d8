"""A field of a request is declared once: its name, code, reading, error, schema and row of the reference follow from that."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import jsonschema_rs
import pytest

from pipeline.request.check import RequestFault, check
from pipeline.request.fields import FIELDS, ExtractRequest
from pipeline.request.kinds import TELLS_RULE, Given, Unfit, boolean, choice, declared, fields_of, whole
from pipeline.types import Question

Thinking = Literal["minimal", "high"]
THINKING: tuple[Thinking, ...] = ("minimal", "high")
IMAGES = [b"https://a.example/"]
REQUIRED = {"inputMethod": "url", "prompt": "p"}


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_that_no_field_takes_is_refused_with_the_field_s_own_code_and_name(name):
    with pytest.raises(RequestFault) as refused:
        check({**REQUIRED, name: [5]}, None if name == "images" else IMAGES)
    assert refused.value.code == FIELDS[name].code
    assert refused.value.message.startswith(name)


def test_a_missing_field_and_one_that_is_null_count_as_what_the_declaration_says():
    missing = check(REQUIRED, IMAGES, models=["m"])
    optional = [field for field in FIELDS.values() if not field.required]
    assert check({**REQUIRED, **{field.name: None for field in optional}}, IMAGES, models=["m"]) == missing
    stated = {field.attribute: field.default for field in optional if field.default is not None}
    assert {name: getattr(missing, name) for name in stated} == stated


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if {"minimum", "enum"} & set(field.schema)])
def test_what_the_schema_says_of_a_range_or_a_choice_is_what_is_read(name):
    field = FIELDS[name]
    validator = jsonschema_rs.Draft202012Validator(field.json_schema)
    values = {*field.schema.get("enum", ()), "", "other", 1.5, True}
    values |= {
        bound + step for bound in (field.schema.get("minimum"), field.schema.get("maximum")) for step in (-1, 0, 1) if bound
    }
    for value in values:
        try:
            field.read(value, Given())
        except Unfit:
            assert not validator.is_valid(value), value
        else:
            assert validator.is_valid(value), value


def test_the_question_is_made_of_attributes_of_the_request():
    request = check({**REQUIRED, "granularity": "perImage", "detail": "low", "imagesPerCall": "7"}, IMAGES, models=["m"])
    for attribute in fields(Question):
        assert getattr(request.question, attribute.name) == getattr(request, attribute.name)
    assert {field.attribute for field in FIELDS.values()} == {attribute.name for attribute in fields(ExtractRequest)}


def _dollars(value: object, _: Given) -> float | None:
    if value is None or (isinstance(value, int | float) and value >= 0):
        return value
    raise Unfit


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Fields of each kind, as another feature would add them."""

    evidence: bool = boolean(what="Whether each value says where it was read.")
    tier: Literal["standard", "economy"] = choice(("standard", "economy"), default="standard", what="What it may cost.")
    thinking: Thinking | None = choice(THINKING, default=None, what="How long it thinks.")
    keep_inputs_seconds: int = whole(0, 86_400, default=0, what="How long images are kept.", says=TELLS_RULE)
    max_money: float | None = declared(
        read=_dollars, schema={"type": ["number", "null"], "minimum": 0}, wants="dollars", what="The most that calls may cost."
    )


@pytest.mark.parametrize(
    ("name", "value", "read", "odd", "message", "rule"),
    [
        (
            "evidence",
            "true",
            True,
            "yes",
            "evidence must be true or false, not 'yes'.",
            "optional: true or false, default `false`. Whether each value says where it was read.",
        ),
        (
            "tier",
            "economy",
            "economy",
            5,
            'tier must be "standard" or "economy", not 5.',
            'optional: `"standard"` or `"economy"`, default `"standard"`. What it may cost.',
        ),
        (
            "thinking",
            None,
            None,
            "low",
            'thinking must be "minimal" or "high", not \'low\'.',
            'optional: `"minimal"` or `"high"`. How long it thinks.',
        ),
        (
            "keepInputsSeconds",
            "60",
            60,
            86_401,
            "keepInputsSeconds must be a whole number from 0 to 86400.",
            "optional: a whole number from 0 to 86400, default `0`. How long images are kept.",
        ),
        (
            "maxMoney",
            0.5,
            0.5,
            [],
            "maxMoney must be dollars, not an array.",
            "optional: dollars. The most that calls may cost.",
        ),
    ],
)
def test_one_declaration_is_all_that_a_new_field_needs(name, value, read, odd, message, rule):
    field = fields_of(Sample)[name]
    assert field.read(value, Given()) == read
    with pytest.raises(Unfit) as unfit:
        field.read(odd, Given())
    assert field.message(unfit.value, odd) == message
    assert field.rule == rule
    assert field.json_schema["description"].endswith(field.what)
    assert field.meaning_of_code.startswith(f"`{name}` is not ")


def test_links_of_the_reference_are_left_out_where_they_lead_nowhere():
    assert "](" in FIELDS["model"].rule
    assert "](" not in FIELDS["model"].json_schema["description"] + FIELDS["model"].meaning_of_code
