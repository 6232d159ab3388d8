"""What a record is an answer to: the same key, the same question about the same picture. Pure."""

from __future__ import annotations

import hashlib

from pipeline.merge import dump_json
from pipeline.types import Question

VERSION = 1  #: of how pictures are put before the model; another one, and no earlier answer is taken


def answer_key(question: Question, *, engine: str, sha256: str) -> str:
    """Of one image's record; `sha256` is of the image's bytes as received. How the images were shared out among calls is
    no part of it."""
    asked = [
        VERSION,
        engine,
        question.model,
        list(question.fallback_models),
        question.prompt,
        question.schema,
        question.json_mode,
        question.detail,
        sha256,
        *(
            [question.thinking] if question.thinking else []
        ),  # without it, keys are what they were before there was such an option
    ]
    return hashlib.sha256(dump_json(asked).encode("utf-8", "surrogatepass")).hexdigest()
