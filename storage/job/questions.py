"""A job's question as its row keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pipeline.types import Detail, Question, Thinking


def options_of(question: Question) -> dict[str, Any]:
    """What `jobs.options` holds: all of the question but its prompt."""
    return {name: value for name, value in asdict(question).items() if name != "prompt"}


def question_of(prompt: str, options: Mapping[str, Any]) -> Question:
    """The question of a row. Rows of an earlier version have fewer options."""
    question = Question(prompt=prompt, **options)
    thinking = Thinking(question.thinking) if question.thinking else None
    return replace(question, fallback_models=tuple(question.fallback_models), detail=Detail(question.detail), thinking=thinking)
