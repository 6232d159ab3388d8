"""The instructions that engines add to a prompt: how the pictures are labelled, and what form the answer must have."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.records.schema import records_schema
from pipeline.types import Call, Form

INSTRUCTIONS = {
    Form.TEXT: "Each image follows its label, such as 'Image 1:'. Answer the prompt for all of the images together. "
    "Where you speak of a single image, name it by its label.",
    Form.JSON: "Each image follows its label, such as 'Image 1:'. Answer the prompt for all of the images together, with "
    "one JSON document and nothing else.",
    Form.RECORDS: "Each image follows its label, such as 'Image 1:'. Answer the prompt for each image by itself, with a "
    "JSON array that has exactly one object for each image: its 'index' is the number in the image's label, its "
    "'result' the answer for that image alone.",
}
#: For calls without pictures, because their prompt holds everything.
ALONE = "Answer the prompt."


def instruction(call: Call) -> tuple[str, dict[str, Any] | None]:
    """The instructions for the model, and for RECORDS the JSON Schema of its answer, an array."""
    if not call.pictures:
        return ALONE, None
    if call.form is not Form.RECORDS:
        return INSTRUCTIONS[call.form], None
    schema, words = records_schema(call.schema, json_mode=call.json_mode)
    return f"{INSTRUCTIONS[call.form]} {words}".rstrip(), schema


def in_words(told: str, schema: dict[str, Any]) -> str:
    """The instruction `told` with the JSON Schema of the answer, for a model that takes a schema only in words."""
    return f"{told} Answer with JSON alone, valid against this JSON Schema:\n{msgspec.json.encode(schema).decode()}"
