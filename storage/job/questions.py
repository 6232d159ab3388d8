"""Converts a job's question to and from the columns of its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.types import Question

#: `convert` uses what this decoder builds. It is made at import, because msgspec crashes the process if two threads build it at once.
_QUESTIONS = msgspec.json.Decoder(Question)


def options_of(question: Question) -> dict[str, Any]:
    """The value of `jobs.options`: every field of the question except the prompt."""
    options: dict[str, Any] = msgspec.to_builtins(question)
    del options["prompt"]
    return options


def question_of(prompt: str, options: Mapping[str, Any]) -> Question:
    """The question, from the columns `prompt` and `options`."""
    return msgspec.convert({**options, "prompt": prompt}, Question)
