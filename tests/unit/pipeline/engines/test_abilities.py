"""What an engine can't do is known before a job is made, and nothing that it may be able to do is refused."""

from __future__ import annotations

import pytest

from pipeline.engines.abilities import ocr_cannot, ocr_ignores, openai_ignores
from pipeline.types import Detail, Question, Thinking

ADDRESS = {"$defs": {"Line": {"type": "string", "maxLength": 3}}, "properties": {"text": {"$ref": "#/$defs/Line"}}}
FITTING = [
    {},
    {"type": "object"},
    {"type": ["object", "null"]},
    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    {"properties": {"text": {"type": "string", "minLength": 500, "pattern": "^INV-[0-9]+$", "format": "date"}}},
    {"properties": {"lines": {"type": "array", "minItems": 3, "items": {"required": ["text", "box", "confidence"]}}}},
    {"properties": {"barcodes": {"items": {"properties": {"format": {"enum": ["EAN13"]}}}}}},
    {"properties": {"total": {"type": "number"}}},
    {"properties": {"kind": {"enum": ["invoice", "receipt"]}}, "required": ["text"]},
    {"additionalProperties": False, "properties": {"text": {}, "lines": {}, "barcodes": {}}},
    {"oneOf": [{"required": ["text"]}, {"required": ["total"]}]},
    {"oneOf": [{"properties": {"text": {"minLength": 9}}}, {"properties": {"text": {"maxLength": 8}}}]},
    {"anyOf": [{"required": ["total"]}, {"type": "object"}]},
    {"not": {"required": ["text"], "properties": {"text": {"const": ""}}}},
    {"if": {"required": ["text"]}, "then": {"required": ["barcodes"]}, "else": {"required": ["total"]}},
    {"properties": {"pattern": {"type": "string"}, "text": {"type": "string"}}},
    ADDRESS,
]
NOT_FITTING = [
    {"type": "array"},
    {"type": "string"},
    {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    {"type": "object", "required": ["pattern"], "properties": {"pattern": {}}},
    {"properties": {"text": {"type": "number"}}},
    {"properties": {"text": {"enum": ["invoice", "receipt"]}}},
    {"properties": {"lines": {"type": "string"}}},
    {"additionalProperties": False, "properties": {"text": {"type": "string"}}},
    {"allOf": [{"required": ["text"]}, {"required": ["total"]}]},
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"allOf": [{"required": ["text"]}], "oneOf": [{"required": ["a"]}]},
    {"enum": [{"kind": "invoice"}]},
    {"$ref": "#/$defs/Total", "$defs": {"Total": {"required": ["total"]}}},
    {"minProperties": 4},
]


@pytest.mark.parametrize("schema", FITTING, ids=str)
def test_a_schema_that_some_record_of_the_ocr_fits_is_taken(schema):
    assert ocr_cannot(Question(prompt="p", per_image=True, schema=schema), 2) == ""


@pytest.mark.parametrize("schema", NOT_FITTING, ids=str)
def test_a_schema_that_no_record_of_the_ocr_fits_is_refused_with_the_ways_out(schema):
    said = ocr_cannot(Question(prompt="p", per_image=True, schema=schema), 2)
    for word in ("schema", "GEMINI_API_KEY", "ENGINE=openai", "Ollama"):
        assert word in said


def test_one_answer_of_several_is_refused_only_where_there_would_be_several():
    wanted = Question(prompt="p", merge="synthesize")
    assert "synthesize" in ocr_cannot(wanted, 2)
    assert ocr_cannot(wanted, 1) == ""
    assert ocr_cannot(Question(prompt="p", merge="synthesize", per_image=True), 2) == ""
    assert ocr_cannot(Question(prompt="p", json_mode=True), 3000) == ""


def test_what_has_no_effect_is_named_and_what_is_not_asked_for_is_not():
    plain = Question(prompt="p")
    assert ocr_ignores(plain) == openai_ignores(plain) == ()
    asked = Question(prompt="p", detail=Detail.ULTRA, thinking=Thinking.HIGH)
    assert [text.split()[0] for text in ocr_ignores(asked)] == ["detail", "thinking"]
    assert [text.split()[0] for text in openai_ignores(asked)] == ["thinking", "detail"]
    assert openai_ignores(Question(prompt="p", detail=Detail.LOW)) == ()
