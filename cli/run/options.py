"""What the user asked `run` for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Form = Literal["csv", "jsonl", "xlsx"]
DEADLINE_SECONDS = 43_200  #: the longest that the service allows, because a large job may wait long for its turn
ECONOMY = "economy"  #: the tier that costs less and takes longer
READ_ALL = "Write down all text in the image, in reading order."  #: the prompt if there is neither a prompt nor a schema
FILL_IN = "Fill in the fields of the schema from the image. Use null for what the image does not show."  #: with a schema alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a run, checked as far as they can be without looking at files."""

    paths: tuple[str, ...]  #: as written
    prompt: str = ""
    schema: Mapping[str, Any] | None = None
    outputs: Mapping[Form, Path]  #: the files to write; empty: standard output
    include: tuple[str, ...] = ()  #: globs; empty: all
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    detail: str | None = None
    tier: str | None = None  #: None: standard
    evidence: bool = False  #: look for each value in its picture
    sample: int | None = None  #: read only this many images
    only_estimate: bool = False
    max_credits: int | None = None
    max_money: float | None = None  #: dollars
    yes: bool = False  #: do not ask
    retry_failed: bool = False
    restart: bool = False
    images_per_job: int | None = None  #: at most; None: as many as the service takes
    explode: str = ""  #: the array field that gets a row for each element

    @property
    def asked(self) -> str:
        """The prompt that is sent."""
        return self.prompt or (FILL_IN if self.schema is not None else READ_ALL)

    def fields(self) -> dict[str, Any]:
        """The request's fields that are the same for every job of the run."""
        given = {
            "prompt": self.asked,
            "schema": self.schema,
            "granularity": "perImage",
            "model": self.model,
            "fallbackModels": list(self.fallback_models) or None,
            "detail": self.detail,
            "evidence": self.evidence or None,
            "tier": self.tier,
            # In the tier economy the service's own deadline is a promise, so it needs none that is longer.
            "deadlineSeconds": None if self.tier == ECONOMY else DEADLINE_SECONDS,
        }
        return {name: value for name, value in given.items() if value is not None}

    def question_hash(self) -> str:
        """Tells whether two runs ask the same, so that their answers may stand in one table. The tier does not change an answer."""
        return digest(replace(self, tier=None).fields())


def digest(value: Any) -> str:
    """SHA-256 in hex of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
