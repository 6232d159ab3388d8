"""Tells what an engine can't do, before a job is made. Pure, and imports no engine.

What decides the form of the answer is refused if the engine can't do it. What only changes how closely or how long a model looks
has no effect, and the job's warnings say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.records.schema import SchemaFault
from pipeline.records.validate import compile_schema
from pipeline.types import Detail, Form, Question

WAYS_OUT = (
    "Ask a model instead: set GEMINI_API_KEY, or run a local server such as Ollama and set ENGINE=openai, "
    "OPENAI_BASE_URL=http://127.0.0.1:11434/v1 and MODEL"
)
_BOX = [[0, 0], [90, 0], [90, 20], [0, 20]]
_LINE = {"text": "Total 12.50", "box": _BOX, "confidence": 0.987}
_CODE = {"format": "QRCode", "text": "12.50", "box": _BOX}
#: Records as the OCR engine gives them: a picture with text, one with a barcode too, one with a barcode only, an empty one.
_OCR_RECORDS: tuple[Any, ...] = (
    {"text": "Total 12.50", "lines": [_LINE], "barcodes": []},
    {"text": "Total 12.50", "lines": [_LINE, {**_LINE, "confidence": 1}], "barcodes": [_CODE]},
    {"text": "", "lines": [], "barcodes": [_CODE]},
    {"text": "", "lines": [], "barcodes": []},
)

#: Keywords that depend on what a picture says. Some picture may fit them, so they are left out.
_OF_CONTENT = frozenset(
    {
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "not",
        "if",
        "then",
        "else",
    }
)
_MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "propertyNames"})


def ocr_cannot(question: Question, images: int) -> str:
    """Why the OCR engine can't answer the question about so many images. Empty if it can."""
    if question.schema is not None and not _fits(question.schema):
        return (
            "ENGINE=ocr can't fill this schema: it reads text and barcodes, and each record is "
            f'{{"text", "lines", "barcodes"}}. {WAYS_OUT}; or leave `schema` out.'
        )
    if question.merge == "synthesize" and question.form is not Form.RECORDS and images > 1:
        return f'ENGINE=ocr can\'t make one answer of several, as `merge: "synthesize"` asks. {WAYS_OUT}; or leave `merge` out.'
    return ""


def ocr_ignores(question: Question) -> tuple[str, ...]:
    """Warnings about fields of the question that have no effect with the OCR engine."""
    given = {"detail": question.detail is not Detail.HIGH, "thinking": question.thinking is not None}
    return tuple(
        f"{name} had no effect: the ocr engine reads each picture in one way only."
        for name, is_given in given.items()
        if is_given
    )


def openai_ignores(question: Question) -> tuple[str, ...]:
    """Warnings about fields of the question that have no effect, or less, with an OpenAI-compatible server."""
    said = []
    if question.thinking is not None:
        said.append("thinking had no effect: the openai engine sends no such field, because servers differ in it.")
    if question.detail is Detail.ULTRA:
        said.append('detail "ultra" was asked for as "high": the API of this server has no higher level.')
    return tuple(said)


def _fits(schema: Mapping[str, Any]) -> bool:
    """Whether some record of the OCR engine is valid against the schema, as far as that can be known without a picture."""
    try:
        fault_of = compile_schema(_without_content(schema))
    except SchemaFault:  # it refers to a part that was left out, so nothing is known
        return True
    return any(not fault_of(record) for record in _OCR_RECORDS)


def _without_content(schema: Any) -> Any:
    """The schema without the keywords that depend on what a picture says. `oneOf` becomes `anyOf`, because more may fit then."""
    if not isinstance(schema, Mapping):
        return schema
    loose: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _OF_CONTENT:
            continue
        if name in _MAPS_OF_SCHEMAS and isinstance(value, Mapping):
            loose[name] = {key: _without_content(part) for key, part in value.items()}
        elif name in _LISTS_OF_SCHEMAS and isinstance(value, list):
            parts = [_without_content(part) for part in value]
            if name == "oneOf":
                loose.setdefault("allOf", []).append({"anyOf": parts})
            else:
                loose[name] = [*loose.get(name, []), *parts] if name == "allOf" else parts
        else:
            loose[name] = _without_content(value) if name in _SCHEMAS else value
    return loose
