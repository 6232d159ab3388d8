"""JSON whose numbers keep the digits that they came with, so that a price of 12.50 does not become 12.5. Pure.

A number with a fraction or an exponent that a float would write in other digits is a `Decimal`. All other numbers are as the standard
library reads them.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from decimal import Decimal
from typing import Any

#: Stands before the digits of a Decimal while the standard library writes it as a text. Nobody can know it, so no text of a caller
#: or a model is taken for a number.
_MARK = f"number-{secrets.token_hex(16)}:"
_MARKED = re.compile(rf'"{_MARK}([^"]+)"')


def read_number(text: str) -> float | Decimal:
    """The value of a JSON number with a fraction or an exponent. Raises ValueError if it is too large for a float."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value if float.__repr__(value) == text else Decimal(text)


def read_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads`, with the digits of numbers kept."""
    return json.loads(text, parse_float=read_number, **options)


def write_json(value: Any, **options: Any) -> str:
    """`json.dumps`, which also writes Decimals, as numbers."""
    text = json.dumps(value, default=_marked, **options)
    return _MARKED.sub(r"\1", text) if _MARK in text else text


def _marked(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{_MARK}{value}"
    raise TypeError(f"{type(value).__name__} is not JSON")
