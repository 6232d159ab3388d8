"""The models a request may name: MODELS, prices, and the fields of a request."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.chosen_engine import models_of
from config.settings import SettingsFault, load_settings
from pipeline.models import KNOWN, Model, most_pictures, parse_models
from pipeline.request.check import RequestFault, check
from pipeline.types import Detail, Question, Tier, Usage

NAMES = ("small", "large")
DAY = date(2026, 11, 26)


def question(**fields: Any) -> Question:
    return check({"inputMethod": "url", "prompt": "p", **fields}, [b"https://a.example/"], models=NAMES).question


def refused(**fields: Any) -> RequestFault:
    with pytest.raises(RequestFault) as fault:
        question(**fields)
    return fault.value


def test_a_model_is_named_with_its_prices_and_limits_and_what_is_known_of_it_is_kept():
    lite, own = parse_models("gemini-3.5-flash-lite rpm=60; own:7b in=0.1 out=0.2 tpm=9 low=1 medium=2 high=3 pictures=4")
    assert (lite.price_in, lite.price_out, lite.rpm, lite.tpm) == (0.30, 2.50, 60, None)
    assert (own.name, own.price_in, own.price_out, own.rpm, own.tpm, own.pictures) == ("own:7b", 0.1, 0.2, None, 9, 4)
    assert [own.picture_tokens(detail) for detail in (Detail.LOW, Detail.MEDIUM, Detail.HIGH)] == [1, 2, 3]


def test_every_fault_of_models_is_named_at_once():
    with pytest.raises(ValueError) as fault:
        parse_models("a in=x; a; b speed=9; =1; c rpm=-1; d pictures=0; e in=nan")
    text = str(fault.value)
    for said in ("a: in must be", "a is there twice", "b: speed=9 is unknown", "=1 is no name", "c: rpm", "d: pictures", "e: in"):
        assert said in text


@given(st.text())
def test_whatever_models_holds_it_is_models_or_a_fault(text):
    try:
        models = parse_models(text)
    except ValueError:
        return
    assert models
    assert all(model.name and 0 <= model.price_in < 1e12 for model in models)


def test_models_must_name_the_default():
    with pytest.raises(SettingsFault) as fault:
        load_settings({"GEMINI_API_KEY": "k", "MODELS": "other", "PORT": "x"})
    assert "MODELS: must name MODEL too, which is gemini-3.5-flash-lite" in str(fault.value)
    assert "PORT" in str(fault.value)


def test_without_models_gemini_has_those_that_are_known_and_the_default_is_first():
    assert list(models_of(load_settings({"GEMINI_API_KEY": "k"}))) == list(KNOWN)
    assert next(iter(models_of(load_settings({"GEMINI_API_KEY": "k", "MODEL": "gemini-3.8-flash"})))) == "gemini-3.8-flash"
    assert set(models_of(load_settings({"GEMINI_API_KEY": "k", "MODEL": "mine"}))) == {"mine", *KNOWN}


def test_a_model_without_limits_of_its_own_has_the_settings():
    environ = {"GEMINI_API_KEY": "k", "MODEL": "a", "MODELS": "b rpm=5; a", "MODEL_RPM": "60", "MODEL_TPM": "1000"}
    models = models_of(load_settings(environ))
    assert [(model.name, model.rpm, model.tpm) for model in models.values()] == [("a", 60, 1000), ("b", 5, 1000)]


def test_ocr_has_one_model_that_costs_nothing():
    [(name, model)] = models_of(load_settings({"MODEL_RPM": "1"})).items()
    assert (model.name, model.price(input_tokens=10**6, output_tokens=10**6, day=DAY)) == (name, 0)


def test_a_price_is_what_so_many_tokens_cost_in_whole_billionths():
    model = Model(name="m", price_in=0.30, price_out=2.50)
    assert model.price(input_tokens=1_000_000, output_tokens=0, day=DAY) == 300_000_000
    assert model.price(input_tokens=1, output_tokens=1, day=DAY) == 2800


@pytest.mark.parametrize(
    ("models", "prices"),
    [
        ("gemini-3.8-flash", [(0.75, 3.75), (1.5, 7.5)]),
        ("gemini-3.8-flash rpm=9", [(0.75, 3.75), (1.5, 7.5)]),
        ("gemini-3.8-flash in=0.5", [(0.5, 3.75), (0.5, 7.5)]),
        ("gemini-3.8-flash in=0.5 out=1", [(0.5, 1), (0.5, 1)]),
        ("gemini-3.8-flash in@2027-01-01=2", [(0.75, 3.75), (2, 7.5)]),
        ("m in@2027-01-01=2 in=1 out=3 out@2026-12-31=4 out@2020-01-01=5 out@2027-01-02=9", [(1, 4), (2, 4)]),
    ],
)
def test_a_price_holds_from_its_day_on_and_one_that_is_set_takes_the_place_of_what_is_known(models, prices):
    [model] = parse_models(models)
    days = (date(2026, 12, 31), date(2027, 1, 1))
    paid = [tuple(model.price(input_tokens=given, output_tokens=1 - given, day=day) / 1000 for given in (1, 0)) for day in days]
    assert paid == prices


@pytest.mark.parametrize(
    ("models", "fractions"),
    [
        ("gemini-3.8-flash", [0.5, 0.5]),
        ("gemini-3.8-flash flex=0.25", [0.25, 0.25]),
        ("gemini-3.8-flash flex=0", [None, None]),
        ("gemini-3.8-flash flex@2027-01-01=0", [0.5, None]),
        ("m flex=1 flex@2027-01-01=0.75", [1, 0.75]),
        ("m flex@2027-01-01=0.75", [None, 0.75]),
        ("m in=1", [None, None]),
    ],
)
def test_an_economy_call_costs_a_fraction_of_the_standard_price_of_its_day_where_the_model_has_that_tier(models, fractions):
    [model] = parse_models(f"{models} in=2 out=6")
    for day, fraction in zip((date(2026, 12, 31), date(2027, 1, 1)), fractions, strict=True):
        assert model.has_tier(Tier.ECONOMY, day) == (fraction is not None)
        assert model.has_tier(Tier.STANDARD, day)
        paid = {tier: model.price(input_tokens=1000, output_tokens=1000, day=day, tier=tier) for tier in Tier}
        assert paid == {Tier.STANDARD: 8_000_000, Tier.ECONOMY: 8_000_000 * (fraction or 1)}


def test_an_economy_call_may_cost_a_standard_price_at_most_because_it_may_be_served_so():
    model = Model(name="m", price_in=1, price_out=2, flex=0.5)
    size: dict[str, Any] = {"characters": 100, "pictures": 3, "detail": Detail.HIGH, "day": DAY}
    economy, standard = model.call_price(**size, tier=Tier.ECONOMY), model.call_price(**size)
    assert (economy.expected * 2, economy.highest) == (standard.expected, standard.highest)


@pytest.mark.parametrize("trait", ["flex=1.1", "flex=-0.5", "flex=nan", "flex=", "flex@2027-01-01=2"])
def test_an_economy_price_that_is_no_fraction_is_refused(trait):
    with pytest.raises(ValueError, match="m: flex must be a number from 0 to 1"):
        parse_models(f"m {trait}")


@pytest.mark.parametrize("trait", ["in@=1", "in@2027=1", "in@2027-13-01=1", "rpm@2027-01-01=1", "in@2027-01-01=x"])
def test_a_price_with_no_day_that_is_one_is_refused(trait):
    with pytest.raises(ValueError, match="m: "):
        parse_models(f"m {trait}")


def test_a_call_is_sized_for_every_model_that_may_come_to_answer_it():
    models = {name: Model(name=name, pictures=pictures) for name, pictures in {"a": 900, "b": 4}.items()}
    assert (most_pictures(models, ["a"]), most_pictures(models, ["a", "b"]), most_pictures(models, ["gone"])) == (900, 4, 900)


def test_usage_adds_up_and_names_each_version_once():
    one = Usage(model_calls=1, input_tokens=2, output_tokens=3, cache_hits=4, nanodollars=5, model_version="v1")
    two = Usage(model_calls=1, nanodollars=1, model_version="v2")
    total = one.plus(two).plus(one)
    assert (total.model_calls, total.cache_hits, total.nanodollars, total.model_version) == (3, 8, 11, "v1, v2")


def test_who_names_no_model_gets_the_first_and_full_detail():
    asked = question()
    assert (asked.model, asked.fallback_models, asked.detail) == ("small", (), Detail.HIGH)


def test_a_request_may_name_its_model_the_fallbacks_and_the_detail():
    asked = question(model="large", fallbackModels=["small", "large", "small"], detail="low")
    assert (asked.model, asked.fallback_models, asked.detail) == ("large", ("small", "large"), Detail.LOW)


@pytest.mark.parametrize("value", ["huge", "", 5, ["small"], {"small": 1}])
def test_another_model_is_refused_and_those_that_may_be_named_are(value):
    fault = refused(model=value)
    assert fault.code == "invalid_model"
    assert '"small", "large"' in fault.message


@pytest.mark.parametrize("value", ["small", ["huge"], [["small"]], [None], {"small": 1}, [5]])
def test_other_fallbacks_are_refused_and_those_that_may_be_named_are(value):
    fault = refused(fallbackModels=value)
    assert fault.code == "invalid_fallback_models"
    assert '"small", "large"' in fault.message


@pytest.mark.parametrize("value", ["huge", "HIGH", 1, ["low"], {}])
def test_another_detail_is_refused_and_the_four_are_named(value):
    fault = refused(detail=value)
    assert fault.code == "invalid_detail"
    assert '"low", "medium", "high", "ultra"' in fault.message
