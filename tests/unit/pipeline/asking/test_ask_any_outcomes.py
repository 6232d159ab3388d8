"""Whatever a model does: who fails, who is answered, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pipeline.asking.ask import ChunkOutcome, ask
from pipeline.plan import cut
from pipeline.ports import ModelFault, ModelUnavailable
from pipeline.types import Answer, Call, Finish, Form, ItemCode, Question, Staged
from tests.fakes.engine import FakeEngine, answer_text

SCHEMA = {"type": "object", "required": ["saw"]}
QUESTIONS = [
    Question(prompt="p"),
    Question(prompt="p", json_mode=True),
    Question(prompt="p", per_image=True),
    Question(prompt="p", per_image=True, json_mode=True),
    Question(prompt="p", per_image=True, schema=SCHEMA),
]
REFUSALS = {"block": Finish.BLOCKED, "unreadable": Finish.UNREADABLE}
OF_RECORDS = {"missing", "doubled", "wrong label", "invalid", "shifted"}
#: What a call can come to, whatever it shows, and what an image can make of each call that shows it.
KINDS = ("block", "unreadable", "truncate", "fault", "garbage", *sorted(OF_RECORDS))


def staged(*indexes: int) -> list[Staged]:
    return [Staged(index=index, mime="image/png", size=1, received=1, sha256="", width=1, height=1) for index in indexes]


def shown(call: Call) -> tuple[int, ...]:
    return tuple(int(picture.data) for picture in call.pictures)


def validate(result: Any) -> str:
    return "" if isinstance(result, dict) and "saw" in result else "/saw is missing"


@dataclass
class Model:
    """Misbehaves by a script, call by call, and for good wherever it sees certain images. Remembers what it did."""

    script: list[str] = field(default_factory=list)  #: for each call in turn; "away": it can't be asked
    culprits: dict[int, str] = field(default_factory=dict)  #: image: what each call that shows it comes to
    asked: list[tuple[tuple[int, ...], str]] = field(default_factory=list)  #: each call that was answered, and with what
    learnt: dict[str, int] = field(default_factory=dict)  #: what the engine was told to show in a call at most, by model
    transient: int = 0  #: calls that misbehaved for no image's sake

    def __call__(self, call: Call, number: int) -> Answer | Exception | None:
        kind = self.script[number - 1] if number <= len(self.script) else "ok"
        if kind == "away":
            return ModelUnavailable("429", retry_after=1)
        if (kind in OF_RECORDS and call.form is not Form.RECORDS) or (kind == "garbage" and call.form is Form.TEXT):
            kind = "ok"  # there is no such thing
        self.transient += kind != "ok"
        said = [index for index in shown(call) if index in self.culprits]
        if kind == "ok" and said:
            kinds = {index: self.culprits[index] for index in said}
            kind = next((kind for kind in KINDS if kind in kinds.values() and kind not in OF_RECORDS), "ok")
            if kind == "ok" and call.form is Form.RECORDS:
                self.asked.append((shown(call), "records"))
                return _records(call, lambda label: kinds.get(shown(call)[label - 1], "ok"))
        self.asked.append((shown(call), kind))
        if kind in REFUSALS:
            return Answer(finish=REFUSALS[kind], code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
        if kind == "truncate":
            return Answer(finish=Finish.TRUNCATED)
        if kind == "fault":
            return ModelFault("HTTP 500")
        if kind == "garbage":
            if call.form is Form.TEXT:
                return None
            return Answer(finish=Finish.COMPLETE, text='Sure! Here you are: [{"index"')
        return _records(call, lambda label: kind if label == 1 else "ok") if kind in OF_RECORDS else None


def _records(call: Call, kind_of: Callable[[int], str]) -> Answer:
    said: list[dict[str, Any]] = []
    records = json.loads(answer_text(call))
    if any(kind_of(record["index"]) == "shifted" for record in records):
        return Answer(finish=Finish.COMPLETE, text=json.dumps([{**one, "index": one["index"] - 1} for one in records]))
    for record in records:
        kind = kind_of(record["index"])
        if kind == "ok":
            said.append(record)
        elif kind == "doubled":
            said += [record, {**record, "result": "other"}]
        elif kind == "wrong label":
            said.append({**record, "index": 999})
        elif kind == "invalid":
            said.append({"index": record["index"], "result": ["seen"]} if call.schema else {"index": record["index"]})
    return Answer(finish=Finish.COMPLETE, text=json.dumps(said))


def run(model: Model, count: int, question: Question, pictures: int) -> list[ChunkOutcome]:
    """All turns that it takes, each gone on from what the one before has left, as it is kept in a database."""
    engine = FakeEngine(pictures=pictures, script=model)
    model.learnt = engine.learnt
    outcomes: list[ChunkOutcome] = []
    turn_over = True
    while turn_over:
        turn_over = False
        settled = set(replied(outcomes)) | set(failed(outcomes))
        kept = json.loads(json.dumps(outcomes[-1].progress)) if outcomes else None
        turn = ask(
            staged(*(index for index in range(count) if index not in settled)),
            engine=engine,
            question=question,
            load=lambda index: str(index).encode(),
            timeout=lambda: 9.0,
            validate=validate if question.schema else None,
            progress=kept,
        )
        try:
            for outcome in turn:
                outcomes.append(outcome)
        except ModelUnavailable:
            turn_over = True
    return outcomes


def replied(outcomes: list[ChunkOutcome]) -> list[int]:
    return [index for outcome in outcomes for reply in outcome.replies for index in reply.indexes]


def failed(outcomes: list[ChunkOutcome]) -> dict[int, ItemCode]:
    return {failure.index: failure.code for outcome in outcomes for failure in outcome.failures}


def told(text: Any) -> Any:
    return text["saw"] if isinstance(text, dict) else text


@settings(max_examples=400)
@given(
    count=st.integers(1, 50),
    pictures=st.integers(1, 50),
    question=st.sampled_from(QUESTIONS),
    script=st.lists(st.sampled_from(["ok", "away", *KINDS]), max_size=60),
    culprits=st.dictionaries(st.integers(0, 49), st.sampled_from(KINDS), max_size=6),
)
def test_for_any_outcomes_the_result_is_a_partition_into_right_records_and_coded_failures_in_budget(
    count, pictures, question, script, culprits
):
    model = Model(script=script, culprits={index: kind for index, kind in culprits.items() if index < count})
    outcomes = run(model, count, question, pictures)

    failures = [failure for outcome in outcomes for failure in outcome.failures]
    assert sorted([*replied(outcomes), *(failure.index for failure in failures)]) == list(range(count))
    assert all(failure.detail for failure in failures)
    for outcome in outcomes:
        for reply in outcome.replies:
            if question.form is Form.RECORDS:
                assert told(reply.result) == str(reply.indexes[0])
            elif question.form is Form.JSON:
                assert [entry["saw"] for entry in json.loads(reply.text)] == [str(index) for index in reply.indexes]
            else:
                assert reply.text == "\n".join(f"{index + 1}={index}" for index in reply.indexes)

    settled: set[int] = set()
    for (images, _), outcome in zip(model.asked, outcomes, strict=True):
        assert settled.isdisjoint(images), "an image was sent after it was settled"
        settled |= {index for reply in outcome.replies for index in reply.indexes} | {one.index for one in outcome.failures}
    refused = [images for images, kind in model.asked if kind in REFUSALS]
    assert len(refused) == len(set(refused))
    for place, (images, kind) in enumerate(model.asked):
        if kind in REFUSALS:
            assert images not in [later for later, _ in model.asked[place + 1 :]], "a refused set was sent again"

    calls = len(model.asked)
    assert calls == sum(outcome.usage.model_calls for outcome in outcomes)
    # Of a model that seems to take one image a call, the rest is asked so: that is the plan from then on.
    planned = len(cut(count, min(pictures, count))) + (count if model.learnt else 0)
    repeats = sum(
        kind == "fault" and images in [later for later, _ in model.asked[at + 1 :]]
        for at, (images, kind) in enumerate(model.asked)
    )
    bad = len(set(failed(outcomes)) | set(model.culprits)) + model.transient + repeats
    event(f"bad: {min(bad, 9)}")
    assert calls <= 1.5 * planned + 2 * bad * max(2, ceil(log2(min(pictures, count))))


@settings(max_examples=200)
@given(count=st.integers(2, 50), bad=st.sets(st.integers(0, 49), max_size=5), kind=st.sampled_from(sorted(REFUSALS)))
def test_refused_images_are_found_within_the_call_budget_to_the_letter(count, bad, kind):
    model = Model(culprits={index: kind for index in bad if index < count})
    outcomes = run(model, count, QUESTIONS[2], 50)
    assert set(failed(outcomes)) == set(model.culprits)
    assert len(model.asked) <= 1.5 + 2 * len(model.culprits) * log2(count)


@pytest.mark.parametrize("count", range(2, 51))
def test_one_refused_image_is_found_within_the_call_budget_wherever_it_stands(count):
    for culprit in range(count):
        model = Model(culprits={culprit: "block"})
        assert failed(run(model, count, QUESTIONS[2], 50)) == {culprit: ItemCode.SAFETY_BLOCKED}
        assert len(model.asked) <= 1.5 + 2 * log2(count)
