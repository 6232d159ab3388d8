"""Unknown fields are named, each with the field that it was meant to be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.request.fields import FIELDS
from pipeline.request.unknown import hint_for, meant_by, warning_of


def spellings(name: str) -> list[str]:
    snake = re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
    return [
        snake,
        snake.replace("_", "-"),
        snake.replace("_", ""),
        snake.upper(),
        name[0].upper() + name[1:],
        name + "s",
        name[:-2] + name[-1],
    ]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_known_in_other_spellings(name):
    for spelling in spellings(name):
        assert meant_by(spelling) == f'"{name}"', spelling


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("image_urls", '"images"'),
        ("imageUrls", '"images"'),
        ("perImage", '"granularity": "perImage"'),
        ("per_image", '"granularity": "perImage"'),
        ("webhook", '"webhookUrl"'),
        ("callback_url", '"webhookUrl"'),
        ("response_format", '"jsonMode"'),
        ("timeout", '"deadlineSeconds"'),
        ("requestSource", "the header Request-Source"),
        ("api_key", "the header Authorization: Bearer <key>"),
        ("colour", ""),
        ("temperature", ""),
        ("", ""),
    ],
)
def test_a_name_of_another_service_is_known(name, meant):
    assert meant_by(name) == meant


def test_a_missing_field_is_found_under_its_other_name():
    assert hint_for("images", ["colour", "image_urls"]) == ' The request has "image_urls": did you mean "images"?'
    assert hint_for("prompt", ["colour", "image_urls"]) == ""


def test_all_missing_fields_are_found_under_their_other_names_at_once():
    hint = hint_for("inputMethod", ["input_method", "image_urls", "colour", "question"], ["inputMethod", "images"])
    assert hint == (
        ' The request has "input_method": did you mean "inputMethod"? The request has "image_urls": did you mean "images"?'
    )


def test_a_warning_names_ten_fields_and_counts_the_others():
    assert warning_of([]) == ""
    warning = warning_of([f"field{number}" for number in range(12)])
    assert '"field9" and 2 more.' in warning


@given(names=st.lists(st.text(), min_size=1))
def test_a_warning_is_short_whatever_the_names_are(names):
    warning = warning_of(names)
    assert warning.startswith("The request has fields that this service does not know")
    assert len(warning) < 2000
    assert "\x00" not in warning
