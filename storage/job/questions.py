"""A job's question as its row keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.types import Question


def options_of(question: Question) -> dict[str, Any]:
    """What `jobs.options` holds: all of the question but its prompt."""
    options: dict[str, Any] = msgspec.to_builtins(question)
    del options["prompt"]
    return options


def question_of(prompt: str, options: Mapping[str, Any]) -> Question:
    """The question of a row."""
    return msgspec.convert({**options, "prompt": prompt}, Question)
