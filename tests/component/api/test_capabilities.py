"""What a form for requests is told: what has an effect, what the limits are, and what is wrong."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest

from api.app import create_app
from config.engines import ENGINES
from pipeline.errors import Transient
from pipeline.types import Detail, Question, Thinking

CAPABILITIES = "/api/v1/capabilities"


@pytest.fixture
def house(make_harness):
    return make_harness(workers_count=0)


def codes(house, **options):
    return [problem["code"] for problem in house.get(CAPABILITIES, **options).json["problems"]]


def test_the_engine_its_models_and_the_limits_are_told(house):
    told = house.get(CAPABILITIES).json
    assert (told["version"], told["engine"]) == (version("extract-image"), house.engine.name)
    assert [(model["name"], model["default"]) for model in told["models"]] == [
        (name, place == 0) for place, name in enumerate(house.models)
    ]
    assert told["models"][0]["can"]["detail"] == [*Detail]
    assert (told["limits"]["imagesPerRequest"], told["limits"]["promptChars"]) == (3000, 100_000)
    assert told["keepInputsMaxSeconds"] == 86_400
    assert (told["ready"], told["problems"]) == (True, [])


def test_a_model_without_a_price_has_none_and_a_known_one_has_that_of_today(house):
    assert house.get(CAPABILITIES).json["models"][0]["price"] is None
    models = {"gemini-3.5-flash-lite": ENGINES["gemini"].models[0]}
    house.app = create_app(replace(house.web, models=models))
    assert house.get(CAPABILITIES).json["models"][0]["price"] == {"input": 0.3, "output": 2.5, "economy": 0.5}


@pytest.mark.parametrize("kind", ENGINES.values(), ids=lambda kind: kind.name)
def test_a_value_is_told_exactly_if_the_engine_gives_no_warning_about_it(kind):
    question = Question(prompt="p")
    assert [detail for detail in Detail if not kind.ignores(replace(question, detail=detail))] == list(kind.details)
    assert [each for each in Thinking if not kind.ignores(replace(question, thinking=each))] == list(kind.thinking)
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    assert (not kind.cannot(replace(question, schema=schema), 1)) == kind.fills_schemas


def test_a_model_that_somebody_has_to_mend_is_a_problem_with_the_words_of_its_notice(house):
    house.app = create_app(replace(house.web, notices=lambda: {"fake-1": "The key is wrong."}))
    told = house.get(CAPABILITIES).json
    assert [(problem["code"], problem["what"]) for problem in told["problems"]] == [("model_away", "The key is wrong.")]
    assert [model["problem"] for model in told["models"]] == ["The key is wrong.", None, None]
    assert told["ready"] is False


def test_a_part_that_is_away_is_named_without_where_it_is(house):
    class Away:
        def list(self, _prefix):
            raise Transient("nobody at 10.1.2.3")

    house.app = create_app(replace(house.web, scratch=Away()))
    answer = house.get(CAPABILITIES)
    assert codes(house) == ["scratch_away"]
    assert "10.1.2.3" not in answer.text


def test_an_account_that_can_pay_for_no_image_is_told_so_and_no_other(house):
    _, poor = house.new_key(10)
    assert codes(house, key=poor) == ["insufficient_credits"]
    assert codes(house) == []


def test_a_key_is_needed(house):
    assert house.client.get(CAPABILITIES).status_code == 401
