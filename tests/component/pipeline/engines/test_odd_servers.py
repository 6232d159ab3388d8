"""Servers that differ from OpenAI's own: every good picture gets its record, and few calls are made to find out what differs."""

from __future__ import annotations

import json
from contextlib import closing
from math import ceil, log2
from typing import Any

import pytest

from pipeline.asking.ask import ChunkOutcome, ask
from pipeline.engines.lessons import LocalLessons
from pipeline.engines.openai import OpenAiEngine
from pipeline.ports import Lessons
from pipeline.records.validate import compile_schema
from pipeline.types import Question, Staged
from tests.fakes.gemini import numbered_picture
from tests.fakes.gemini_behaviours import OUT_OF_TOKENS, failing
from tests.fakes.openai import FakeOpenAI, Odd
from tests.fakes.reencode import fake_reencode

SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
QUESTION = Question(prompt="Which number?", per_image=True, schema=SCHEMA)
TEXT = Question(prompt="Which number?")


def engine_of(fake: FakeOpenAI, lessons: Lessons | None = None) -> OpenAiEngine:
    return OpenAiEngine(base_url=fake.base_url, api_key=fake.key, model="vision:7b", reencode=fake_reencode, lessons=lessons)


def run(engine: OpenAiEngine, count: int, question: Question = QUESTION) -> list[ChunkOutcome]:
    pictures = [numbered_picture(number) for number in range(count)]
    staged = [
        Staged(index=i, mime="image/png", size=len(data), received=1, sha256="", width=1, height=1)
        for i, data in enumerate(pictures)
    ]
    validate = compile_schema(question.schema) if question.schema else None
    options: dict[str, Any] = {"load": pictures.__getitem__, "timeout": lambda: 20.0, "pictures": 20, "validate": validate}
    return list(ask(staged, engine=engine, question=question, **options))


def numbers(outcomes: list[ChunkOutcome]) -> dict[int, int]:
    return {reply.indexes[0]: reply.result["number"] for outcome in outcomes for reply in outcome.replies}


def failed(outcomes: list[ChunkOutcome]) -> set[int]:
    return {failure.index for outcome in outcomes for failure in outcome.failures}


@pytest.mark.parametrize(
    ("without", "odd", "extra"),
    [
        ((), Odd(), 0),
        (("system",), Odd(), 1),
        (("detail",), Odd(), 1),
        (("system", "detail", "json_schema", "json_object", "max_tokens"), Odd(), 5),
        (("json_schema", "json_object"), Odd(words=False), 2),
        (("json_schema", "json_object", "system"), Odd(words=False), 3),
        ((), Odd(streams=True), 0),
        ((), Odd(only_streams=True), 0),
        ((), Odd(ignores_schema=True), 1),
        ((), Odd(grammar_fails="failed to parse grammar"), 1),
        ((), Odd(grammar_fails="Internal Server Error"), 3),
        ((), Odd(context=16_384), 1),
        (("system", "json_schema"), Odd(context=12_000, ignores_schema=True), 3),
    ],
    ids=str,
)
def test_what_differs_costs_a_few_requests_once_a_process_and_none_afterwards(without, odd, extra):
    with FakeOpenAI(without=without, odd=odd) as fake:
        engine = engine_of(fake)
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        assert fake.requests <= 1 + extra
        before = fake.requests
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        assert fake.requests - before == 1
        assert fake.refused == fake.faults == []
        engine.close()


@pytest.mark.parametrize(("words", "first"), [(True, 16 + 2), (False, 16 + 4 + 3)])
def test_a_server_of_one_picture_a_call_costs_as_many_calls_as_pictures_once_it_is_known(words, first):
    with FakeOpenAI(odd=Odd(pictures=1, words=words)) as fake:
        lessons = LocalLessons()
        engine, other = engine_of(fake, lessons), engine_of(fake, lessons)
        assert numbers(run(engine, 16)) == {number: number for number in range(16)}
        assert fake.requests <= first
        for asked in (engine, other):  # the other one is of another worker
            before = fake.requests
            assert len(numbers(run(asked, 16))) == 16
            assert fake.requests - before == 16
        engine.close()
        other.close()


def test_a_limit_of_several_pictures_is_learnt_too():
    with FakeOpenAI(odd=Odd(pictures=4)) as fake:
        engine = engine_of(fake)
        assert len(numbers(run(engine, 16))) == 16
        assert fake.requests == 1 + 4
        engine.close()


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("question", [QUESTION, TEXT], ids=["records", "text"])
@pytest.mark.parametrize("bad", [{5}, {0, 15}, {7}])
def test_bad_pictures_fail_alone_within_the_budget_whatever_the_words(words, question, bad):
    with FakeOpenAI(odd=Odd(bad=frozenset(bad), words=words)) as fake:
        engine = engine_of(fake)
        outcomes = run(engine, 16, question)
        assert failed(outcomes) == bad
        assert sum(len(reply.indexes) for outcome in outcomes for reply in outcome.replies) == 16 - len(bad)
        learning = 0 if words else 3 * (1 + len(bad))
        assert fake.requests <= 1.5 + 2 * len(bad) * ceil(log2(16)) + learning
        before = fake.requests
        assert failed(run(engine, 16, question)) == bad
        assert fake.requests - before <= 1.5 + 2 * len(bad) * ceil(log2(16))
        engine.close()


def test_a_call_too_long_for_the_context_is_cut_to_what_fits():
    with FakeOpenAI(odd=Odd(context=8192)) as fake:
        engine = engine_of(fake)
        assert len(numbers(run(engine, 16))) == 16
        assert fake.requests <= 1 + 4 + 2
        assert max(len(call.numbers) for call in fake.calls) == 5
        engine.close()


def test_a_refused_schema_is_learnt_for_that_schema_alone():
    with FakeOpenAI(odd=Odd(grammar_fails="failed to parse grammar")) as fake:
        engine = engine_of(fake)
        run(engine, 1)
        fake.odd = Odd()
        run(engine, 1)
        other = Question(prompt="p", per_image=True, schema={**SCHEMA, "title": "another"})
        run(engine, 1, other)
        assert [sent.format for sent in fake.sent] == ["json_object", "json_object", "json_schema"]
        engine.close()


def test_a_model_that_gives_one_record_a_call_gives_all_of_them_in_the_end():
    def first_only(call):
        from tests.fakes.gemini_behaviours import Behaviour

        return Behaviour(records=lambda records: records[:1])

    with FakeOpenAI(script=first_only) as fake:
        engine = engine_of(fake)
        assert numbers(run(engine, 40)) == {number: number for number in range(40)}
        engine.close()


def test_the_answers_of_a_server_that_wraps_them_are_the_same():
    def wrapped(call):
        from tests.fakes.gemini_behaviours import Behaviour

        return Behaviour(text=lambda text: f"<think>Image 1 {{ maybe\n</think>\nHere it is:\n```json\n{text}\n```\nDone.")

    with FakeOpenAI(script=wrapped) as fake:
        engine = engine_of(fake)
        # The fake's text is an array here, because a behaviour that changes the text leaves it as the model gave it.
        assert numbers(run(engine, 4)) == {number: number for number in range(4)}
        assert json.dumps(fake.faults) == "[]"
        engine.close()


@pytest.mark.parametrize("question", [QUESTION, Question(prompt="Which number?", json_mode=True)], ids=["records", "JSON"])
def test_a_fault_that_passes_is_not_taken_for_the_server_s_manner(question):
    faults = iter([failing(500)] * 2)
    with FakeOpenAI(script=lambda _call: next(faults, None)) as fake, closing(engine_of(fake)) as engine:
        outcomes = run(engine, 8, question)
        usual, *_, confirmed = [sent.format for sent in fake.sent]
        assert (failed(outcomes), confirmed) == (set(), usual)
        before = fake.requests
        assert failed(run(engine, 8, question)) == set()
        assert [sent.format for sent in fake.sent[before:]] == [usual]


def test_what_was_asked_in_another_manner_is_paid_too():
    def tokens(faults):
        left = iter([failing(500)] * faults)
        with FakeOpenAI(script=lambda _call: next(left, None)) as fake, closing(engine_of(fake)) as engine:
            return sum(outcome.usage.output_tokens for outcome in run(engine, 8))

    assert tokens(2) > 1.5 * tokens(0)


@pytest.mark.parametrize("passing", [failing(503), failing(429), failing(409)], ids=["503", "429", "409"])
def test_whatever_the_second_look_meets_the_answer_is_kept_and_nothing_is_learnt(passing):
    answers = iter([failing(500), failing(500), None, passing])
    with FakeOpenAI(script=lambda _call: next(answers, None)) as fake, closing(engine_of(fake)) as engine:
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        before = fake.requests
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        assert [sent.format for sent in fake.sent[before:]] == ["json_schema"]


def test_a_server_that_was_away_at_the_second_look_is_found_out_by_the_next_call():
    def script(_call):
        if len(fake.sent) == 4:
            return failing(503)
        return failing(500) if fake.sent[-1].format == "json_schema" else None

    with FakeOpenAI(script=script) as fake, closing(engine_of(fake)) as engine:
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        before = fake.requests
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        assert fake.requests - before == 1, "the other manner is learnt"


def test_an_answer_that_is_cut_short_at_the_second_look_does_not_replace_a_whole_one():
    answers = iter([failing(500), failing(500), None, OUT_OF_TOKENS])
    with FakeOpenAI(script=lambda _call: next(answers, None)) as fake, closing(engine_of(fake)) as engine:
        assert numbers(run(engine, 8)) == {number: number for number in range(8)}
        assert fake.requests == 4
