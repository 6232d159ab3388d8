"""Validates records against their schema, by jsonschema-rs. It takes linear time for patterns, and fetches nothing.

A `pattern` runs in Rust's regex engine, which never backtracks (docs/adr/0009). A schema whose patterns have look-around or
back-references is refused, because these need backtracking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from jsonschema_rs import Draft202012Validator, ReferencingError, RegexOptions, ValidationError

from pipeline.records.schema import SchemaFault

PATTERN_BYTES = 1 << 17  #: of a compiled pattern
MOST_FAULTS = 3  #: how many faults of one record are reported
LONGEST_FAULT = 160  #: characters; longer texts are cut, because they may quote the model


def compile_schema(schema: Mapping[str, Any]) -> Callable[[Any], str]:
    """Returns a function that says what is wrong with a record. Its text is empty if the record fits.

    `schema` must have passed `check_schema`. Raises SchemaFault.
    """
    patterns = RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)
    try:
        validator = Draft202012Validator(dict(schema), pattern_options=patterns, validate_formats=False, offline=True)
    except (ValidationError, ReferencingError, ValueError) as error:
        raise SchemaFault(_refusal(error)) from None

    def fault_of(record: Any) -> str:
        faults = islice(validator.iter_errors(record), MOST_FAULTS)
        return "; ".join(f"{_place(error.instance_path)}{_short(error.message)}" for error in faults)

    return fault_of


def _refusal(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return _short(str(error))
    text = f"{_place(error.instance_path)}{_short(error.message)}."
    if '"regex"' in error.message:
        text += " A pattern may have no look-around and no back-references, and no long counts within counts."
    return text


def _place(path: list[str | int]) -> str:
    return f"{_short('/' + '/'.join(map(str, path)))}: " if path else ""


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_FAULT else f"{text[:LONGEST_FAULT]}…"
