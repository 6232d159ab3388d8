from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.asking.synthesize import MOST_CHARACTERS, MOST_PIECES, ask_for, calls_of, grow
from pipeline.merge import merge
from pipeline.ports import ModelFault, ModelRefused, ModelUnavailable
from pipeline.types import Answer, Finish, Form, ItemCode, Question, Reply
from tests.fakes.engine import FakeEngine

TEXT = Question(prompt="How much in all?", merge="synthesize")
JSON = Question(prompt="How much in all?", json_mode=True, merge="synthesize")


def replies(count: int, *, form: Form = Form.TEXT) -> list[Reply]:
    """About two images each."""

    def text(first: int) -> str:
        labels = (first + 1, first + 2)
        return json.dumps([{"label": n} for n in labels]) if form is Form.JSON else "\n".join(f"{n}=img" for n in labels)

    return [Reply(indexes=(first, first + 1), text=text(first)) for first in range(0, 2 * count, 2)]


def synthesize(pieces, engine, question=TEXT, known=None):
    """As the finalize step does; what it came to, and what is kept of each call."""
    known = {} if known is None else known
    while True:
        left, call = grow(pieces, known)
        if call is None:
            return left
        merged = ask_for(call, engine=engine, question=question, timeout=lambda: 9.0, waited=False)
        known[merged.key] = merged.text


def test_a_few_answers_become_one_in_one_call():
    engine = FakeEngine()
    [joined] = synthesize(replies(3), engine)
    assert joined.indexes == (0, 1, 2, 3, 4, 5)
    assert joined.text.splitlines() == [f"{n}=img" for n in range(1, 7)]
    [call] = engine.calls
    assert call.pictures == ()
    assert call.prompt.startswith("How much in all?\n\n")
    assert [f"Images {first} to {first + 1}" in call.prompt for first in (1, 3, 5)] == [True] * 3


def test_one_answer_needs_no_call():
    engine = FakeEngine()
    assert synthesize(replies(1), engine) == replies(1)
    assert synthesize([], engine) == []
    assert engine.calls == []


@pytest.mark.parametrize("count", [2, 19, 20, 21, 40, 41, 150, 420])
def test_many_become_one_by_a_tree_of_as_many_calls_as_were_estimated(count):
    engine = FakeEngine()
    [joined] = synthesize(replies(count), engine)
    assert joined.indexes == tuple(range(2 * count))
    assert joined.text.splitlines() == [f"{n}=img" for n in range(1, 2 * count + 1)]
    assert len(engine.calls) == calls_of(count)


def test_in_json_mode_one_document_comes_out():
    [joined] = synthesize(replies(45, form=Form.JSON), FakeEngine(), JSON)
    assert [entry["label"] for entry in json.loads(joined.text)] == list(range(1, 91))


def test_answers_that_are_too_long_together_are_not_sent_together():
    long = [Reply(indexes=(index,), text="x" * (MOST_CHARACTERS // 3)) for index in range(7)]
    engine = FakeEngine(script=lambda call, _n: Answer(finish=Finish.COMPLETE, text="short"))
    [joined] = synthesize(long, engine)
    assert joined.indexes == tuple(range(7))
    assert all(len(call.prompt) < MOST_CHARACTERS * 1.1 for call in engine.calls)


def test_what_is_too_much_for_one_answer_is_made_one_by_halves_and_stays_several():
    def script(call, _number):
        return Answer(finish=Finish.TRUNCATED) if call.prompt.count("=img") > 8 else None

    left = synthesize(replies(8), FakeEngine(script=script))
    assert [reply.indexes for reply in left] == [tuple(range(8)), tuple(range(8, 16))]


def test_a_call_that_fails_is_made_once_more():
    engine = FakeEngine(script=lambda _call, number: ModelFault("HTTP 500") if number == 1 else None)
    assert len(synthesize(replies(3), engine)) == 1
    assert len(engine.calls) == 2


def test_nothing_that_was_paid_for_is_asked_again_when_it_is_gone_on_from():
    known: dict[str, str | None] = {}
    away = FakeEngine(script=lambda _call, number: ModelUnavailable("429", retry_after=1) if number > 2 else None)
    with pytest.raises(ModelUnavailable):
        synthesize(replies(60), away, known=known)
    again = FakeEngine()
    [joined] = synthesize(replies(60), again, known=json.loads(json.dumps(known)))
    assert joined.indexes == tuple(range(120))
    assert len(again.calls) == calls_of(60) - 2


kinds = st.sampled_from(["ok", "ok", "truncate", "block", "fault", "refuse", "garbage"])


@settings(max_examples=150)
@given(count=st.integers(0, 90), script=st.lists(kinds, max_size=40), question=st.sampled_from([TEXT, JSON]))
def test_whatever_the_model_does_it_ends_with_every_image_in_order_and_a_string_that_parses(count, script, question):
    def misbehave(call, number):
        return {
            "truncate": Answer(finish=Finish.TRUNCATED),
            "block": Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED),
            "fault": ModelFault("HTTP 500"),
            "refuse": ModelRefused("HTTP 400"),
            "garbage": Answer(finish=Finish.COMPLETE, text='[{"label": 1}, {"lab' if call.form is Form.JSON else "\ud800\x00"),
        }.get(script[number - 1] if number <= len(script) else "ok")

    engine = FakeEngine(script=misbehave)
    left = synthesize(replies(count, form=question.form), engine, question)
    assert [index for reply in left for index in reply.indexes] == list(range(2 * count))
    result = merge(left, question.form, question.merge)
    result.encode()
    if question.json_mode and count:
        labels = [entry["label"] for entry in json.loads(result)]
        assert labels == list(range(1, 2 * count + 1))
    assert len(engine.calls) <= 4 * max(count, 1)


def test_a_tree_joins_as_many_as_it_may():
    assert calls_of(MOST_PIECES) == 1
