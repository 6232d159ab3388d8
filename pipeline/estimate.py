"""Estimates the cost of a request without running it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pipeline.asking.synthesize import MOST_PIECES, calls_of
from pipeline.credits import reservation
from pipeline.models import INSTRUCTIONS, Model, output_tokens
from pipeline.plan import RAW_BYTES, ChunkPlan, pack_calls
from pipeline.request.fields import ExtractRequest
from pipeline.types import MAX_OUTPUT_TOKENS, Form, Question, Staged, Tier


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The estimate assumes that every image can be fetched, no call fails, and no record is cached."""

    images: int
    model_calls: int
    input_tokens: int
    output_tokens: int
    credits: int  #: at most
    nanodollars: Mapping[Tier, int]  #: for the model, in billionths of a dollar, in each tier that it has
    tier: Tier  #: the one that the request asks for
    priced: bool  #: whether the model has a price; without one, `nanodollars` are 0

    @property
    def dollars(self) -> float:
        """The price in the tier of the request, with all calls answered in it."""
        return self.nanodollars[self.tier] / 1e9


def estimate(request: ExtractRequest, *, plan: Sequence[ChunkPlan], model: Model, day: date) -> Estimate:
    """Estimates a request. `plan`: the chunks that it would be cut into; `model`: the first model that would be asked; `day`: in UTC.

    The size of an image behind a URL is not known. The estimate assumes that these images do not need additional calls.
    """
    question = request.question
    calls = [len(call) for chunk in plan for call in _calls(request, chunk, model)]
    characters = _characters(question)
    given = [
        model.input_tokens(characters=characters, pictures=pictures, detail=question.detail) if model.high else 0
        for pictures in calls
    ]
    taken = [output_tokens(pictures) for pictures in calls]
    if question.merge == "synthesize" and question.form is not Form.RECORDS:
        joined = calls_of(len(calls))
        given += [MAX_OUTPUT_TOKENS // 2 * min(len(calls), MOST_PIECES)] * joined
        taken += [output_tokens(0)] * joined
    return Estimate(
        images=len(request.images),
        model_calls=len(taken),
        input_tokens=sum(given),
        output_tokens=sum(taken),
        credits=reservation(len(request.images)),
        nanodollars={
            tier: model.price(input_tokens=sum(given), output_tokens=sum(taken), day=day, tier=tier)
            for tier in Tier
            if model.has_tier(tier, day)
        },
        tier=request.tier,
        priced=model.has_price,
    )


def _calls(request: ExtractRequest, chunk: ChunkPlan, model: Model) -> list[tuple[Staged, ...]]:
    by_value = request.input_method == "base64"
    images = [
        Staged(
            index=index,
            mime="",
            size=len(request.images[index]) * 3 // 4 if by_value else 0,
            received=0,
            sha256="",
            width=0,
            height=0,
        )
        for index in range(chunk.first, chunk.first + chunk.count)
    ]
    return pack_calls(images, pictures=model.pictures, raw_bytes=RAW_BYTES)


def _characters(question: Question) -> int:
    schema = len(json.dumps(question.schema)) if question.schema is not None else 0
    return len(question.prompt) + schema + INSTRUCTIONS
