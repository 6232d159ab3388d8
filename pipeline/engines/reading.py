"""Reads a model's answer to a call, whatever it is wrapped in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.merge import MalformedJson, dump_json
from pipeline.records.unwrap import document_in, json_text, plain_text, records_in
from pipeline.records.validate import compile_schema
from pipeline.types import Call, Form


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """The text of an answer without its wrapping."""

    text: str  #: for RECORDS a JSON array, for JSON a document; text without a document comes as it was
    fits: bool = True  #: with RECORDS: whether it is valid against the schema that the model was given


def read_answer(call: Call, texts: Sequence[str], *, schema: Mapping[str, Any] | None) -> Read:
    """The answer in the first of `texts` that holds one.

    `texts`: places where the answer may stand, the usual one first. `schema`: of the whole answer, as `instruction` returns it.
    """
    if call.form is Form.TEXT:
        return Read(text=plain_text(texts[0]))
    for text in texts:
        try:
            if call.form is Form.JSON or schema is None:
                return Read(text=json_text(text))
            document = document_in(text, records=True)
        except MalformedJson:
            continue
        fits = _checks(dump_json(call.schema)) if call.schema is not None else None
        labels = [picture.number for picture in call.pictures]
        records = records_in(document, labels=labels, fits=fits, json_mode=call.json_mode)
        return Read(text=dump_json(records), fits=_checks(dump_json(schema))(records))
    return Read(text=texts[0], fits=False)


@lru_cache(maxsize=64)
def _checks(schema: str) -> Callable[[Any], bool]:
    """A function that says whether a value is valid. The schema is JSON text. It is kept, because compiling takes time."""
    fault_of = compile_schema(json.loads(schema))
    return lambda value: not fault_of(value)
