"""The cache key of a record. Two records have the same key if they answer the same question about the same picture. Pure."""

from __future__ import annotations

import hashlib

from pipeline.merge import dump_json
from pipeline.types import Question

VERSION = 1  #: raise it when pictures are shown to the model in another way, so that no earlier answer is used


def answer_key(question: Question, *, engine: str, sha256: str) -> str:
    """The cache key of one image's record. `sha256` is the hash of the image's bytes as received.

    The key does not depend on which images were in the same call.
    """
    asked = [
        VERSION,
        engine,
        question.model,
        list(question.fallback_models),
        question.prompt,
        question.schema,
        question.json_mode,
        question.detail,
        question.thinking,
        sha256,
    ]
    return hashlib.sha256(dump_json(asked).encode("utf-8", "surrogatepass")).hexdigest()
