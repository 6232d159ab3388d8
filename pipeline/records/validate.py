"""Validates records against their schema, by jsonschema-rs. It takes linear time for patterns, and fetches nothing.

The validator keeps Python's lock, so every other thread stands still while it works. A check that may take longer than a few
milliseconds therefore runs in a child process with limits (`pipeline/records/apart.py`, docs/adr/0038).

A `pattern` runs in Rust's regex engine, which never backtracks (docs/adr/0009). Patterns with look-around or back-references need
backtracking, so they are left unchecked (docs/adr/0028). A pattern that no engine can read is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jsonschema_rs import Draft202012Validator, FancyRegexOptions, ReferencingError, RegexOptions, ValidationError

from pipeline.records.apart import checked_apart
from pipeline.records.cost import Weigher, size_of
from pipeline.records.first_fault import FaultFinder
from pipeline.records.patterns import loosened, translated
from pipeline.records.schema import SchemaFault

PATTERN_BYTES = 1 << 17  #: of a compiled pattern
MOST_HERE = 2_000_000  #: units of `pipeline/records/cost.py`: a check that may take more, about 20 ms, runs in a child process
MOST_APART = 100_000_000  #: units: what a search for a fault may take in a child process
LONGEST_FAULT = 160  #: characters; longer texts are cut, because they may quote the model

_LINEAR = RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)
#: It only reads patterns here and never runs one, because it backtracks.
_BACKTRACKING = FancyRegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)
_NAMED_REFERENCE = re.compile(r"\\k<|\(\?P=")  # the engine that backtracks does not read these spellings


def compile_schema(schema: Mapping[str, Any], *, most_here: int = MOST_HERE) -> Callable[[Any], str]:
    """Returns a function that says what is wrong with a record: its first fault. Its text is empty if the record fits.

    `schema` must have passed `check_schema`. Records are not checked against the patterns that `unchecked_patterns` names. A check
    that may take more than `most_here` units runs in a child process; if it takes too long there, the record does not fit. Raises
    SchemaFault.
    """
    checked, _ = loosened(schema, _is_checked)
    try:
        validator = Draft202012Validator(checked, pattern_options=_LINEAR, validate_formats=False, offline=True)
    except (ValidationError, ReferencingError, ValueError) as error:
        raise SchemaFault(_refusal(error)) from None
    weigher = Weigher(checked)

    def fault_of(record: Any) -> str:
        if weigher.weigh(checked).cost(size_of(record)) > most_here:
            return checked_apart(schema, record)
        if validator.is_valid(record):
            return ""
        place, said = FaultFinder(checked, weigher, _LINEAR).first_fault(record, most=min(most_here, MOST_APART))
        return f"{_place(place)}{_short(said)}"

    return fault_of


def unchecked_patterns(schema: Mapping[str, Any]) -> list[str]:
    """The paths of the patterns that records are not checked against, such as `#/properties/total/pattern`."""
    return loosened(schema, _is_checked)[1]


@lru_cache(maxsize=1024)
def _is_checked(pattern: str) -> bool:
    """Whether the pattern takes part in the check. A pattern that no engine can read does too, so that it is refused."""
    pattern = translated(pattern)
    return _is_readable(pattern, _LINEAR) or not (_is_readable(pattern, _BACKTRACKING) or _NAMED_REFERENCE.search(pattern))


def _is_readable(pattern: str, options: RegexOptions | FancyRegexOptions) -> bool:
    try:
        Draft202012Validator({"pattern": pattern}, pattern_options=options, offline=True)
    except ValueError:  # ValidationError is a subclass of it
        return False
    return True


def _refusal(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return _short(str(error))
    text = f"{_place(error.instance_path)}{_short(error.message)}."
    if '"regex"' in error.message:
        text += " A pattern must be readable and may have no long counts: write maxLength instead of a count such as {0,5000}."
    return text


def _place(path: list[str | int]) -> str:
    return f"{_short('/' + '/'.join(map(str, path)))}: " if path else ""


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_FAULT else f"{text[:LONGEST_FAULT]}…"
