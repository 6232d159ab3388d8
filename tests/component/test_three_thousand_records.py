"""A record for each of 3000 images, from a model that misbehaves in every way it can: the fake Gemini, behind the real SDK."""

from __future__ import annotations

import json
import random
from collections import Counter
from math import log2
from typing import Any

import pytest

from tests.fakes.gemini import Behaviour, FakeGemini, Outcome, SeenCall
from tests.fakes.gemini_behaviours import (
    CUT_OFF,
    EMPTY_TEXT,
    GARBAGE,
    MALFORMED_JSON,
    NO_CANDIDATES,
    OUT_OF_ORDER,
    OUT_OF_TOKENS,
    RESET,
    Record,
    blocked_answer,
    blocked_prompt,
    doubled_records,
    failing,
    missing_records,
    rate_limited,
    wrong_index,
)
from tests.gemini_house import RECORD, gemini_house, numbered_urls
from tests.harness import Harness

pytestmark = pytest.mark.slow

IMAGES = 3000
A_CALL = 20
PLANNED = IMAGES // A_CALL
#: 1 % of the images are refused for their content, and a few can't be read.
BLOCKED = frozenset(random.Random(6).sample(range(IMAGES), IMAGES // 100))
UNREADABLE = frozenset({5, 1999, 2990}) - BLOCKED
EVERY = 20  #: of so many calls one misbehaves


def _misfit(records: list[Record]) -> list[Record]:
    """The first record does not fit the schema."""
    return [{**record, "result": {"number": "7"}} if place == 0 else record for place, record in enumerate(records)]


MISNUMBERED = wrong_index(1, 99)
KINDS = (
    rate_limited("0.01s"),
    failing(500),
    failing(503),
    OUT_OF_TOKENS,
    missing_records(1, 2),
    MALFORMED_JSON,
    Behaviour(records=_misfit),
    doubled_records(1),
    RESET,
    blocked_answer("RECITATION"),
    MISNUMBERED,
    GARBAGE,
    failing(504),
    CUT_OFF,
    EMPTY_TEXT,
    blocked_prompt("OTHER"),
    NO_CANDIDATES,
    failing(408),
    OUT_OF_ORDER,
)


class OneInTwenty:
    """Each kind in turn, for a call of several pictures that are all as they should be: the fake would answer the others."""

    def __init__(self) -> None:
        self.calls = 0
        self.misnumbered: set[int | None] = set()  #: images of an answer that named one that was not sent

    def __call__(self, call: SeenCall) -> Behaviour | None:
        due = call.order >= EVERY * self.calls
        if not due or len(call.numbers) < 3 or not (BLOCKED | UNREADABLE).isdisjoint(call.numbers):
            return None
        kind = KINDS[self.calls % len(KINDS)]
        self.calls += 1
        if kind is MISNUMBERED:
            self.misnumbered.update(call.numbers)
        return kind


def answered(house: Harness, images: int = IMAGES) -> tuple[Any, Any]:
    """The job and its answer, however often the model was away."""
    body = {"inputMethod": "url", "images": numbered_urls(house, images), "prompt": "Which number?", "schema": RECORD}
    job = house.post(body, headers={"Prefer": "respond-async"}).json
    while not house.get(job["links"]["self"]).json["finishedAt"]:
        house.skip_waits()
        house.drain()
    return house.get(job["links"]["self"]).json, house.get(job["links"]["results"]).json


def assert_nothing_refused_is_sent_again(calls: list[SeenCall]) -> None:
    refused: set[tuple[int | None, ...]] = set()
    for call in calls:
        assert call.numbers not in refused
        if call.outcome in (Outcome.BLOCKED, Outcome.UNREADABLE):
            refused.add(call.numbers)


def test_every_image_gets_its_own_record_or_its_code_in_budget_and_nothing_refused_is_sent_again(tmp_path):
    wayward = OneInTwenty()
    fake = FakeGemini(blocked=BLOCKED, unreadable=UNREADABLE, script=wayward)
    with fake, gemini_house(tmp_path, fake, workers_count=0) as house:
        job, answer = answered(house)
        records = json.loads(answer["results"])
        good = [index for index in range(IMAGES) if index not in BLOCKED | UNREADABLE]
        assert [(record["index"], record["result"]["number"]) for record in records] == [(index, index) for index in good]
        assert {error["index"]: error["code"] for error in answer["errors"]} == {
            **dict.fromkeys(BLOCKED, "safety_blocked"),
            **dict.fromkeys(UNREADABLE, "model_refused"),
        }
        assert (job["status"], answer["creditUsage"]) == ("partial", 10 + len(good))

        assert_nothing_refused_is_sent_again(fake.calls)
        # Each is answered once and never asked for again, but those whose answer was not to be trusted.
        assert {index: times for index, times in fake.seen.items() if times != 1}.keys() <= wayward.misnumbered
        assert sorted(fake.seen) == good
        assert wayward.calls >= len(KINDS)
        bad = len(BLOCKED | UNREADABLE) + wayward.calls
        assert len(fake.calls) <= 1.5 * PLANNED + 2 * bad * log2(A_CALL)


def test_when_every_first_answer_is_cut_short_every_image_still_gets_its_record(tmp_path):
    images = 1000
    fake = FakeGemini(script=lambda call: OUT_OF_TOKENS if len(call.numbers) == A_CALL else None)
    with fake, gemini_house(tmp_path, fake, workers_count=0) as house:
        job, answer = answered(house, images)
        records = json.loads(answer["results"])
        assert [(record["index"], record["result"]["number"]) for record in records] == [(i, i) for i in range(images)]
        assert job["status"] == "succeeded"
        assert fake.seen == Counter(range(images))
        assert len(fake.calls) == 3 * images // A_CALL
